// A worker on the published npm SDK, driven by calls: `node official_worker.mjs URL NAME`.
import { registerWorker, TriggerAction } from 'iii-sdk'
import { createChannel } from 'iii-sdk/helpers'

const [url, name] = process.argv.slice(2)
const worker = registerWorker(url, { workerName: name })
const seen = []

const handlers = {
  echo: async (data) => data,
  describe: async (data, metadata) => ({ data, metadata: metadata ?? null }),
  fail: async () => {
    throw new Error('this is why')
  },
  call: async ({ function_id, payload, void: isVoid }) => {
    try {
      const action = isVoid ? { action: TriggerAction.Void() } : {}
      return { result: (await worker.trigger({ function_id, payload, ...action })) ?? null }
    } catch (error) {
      return { code: error.code, message: error.message }
    }
  },
  big: async ({ function_id, size }) => {
    const text = 'x'.repeat(size)
    return (await worker.trigger({ function_id, payload: text })) === text
  },
  on_event: async (data) => {
    seen.push(data)
  },
  events: async () => seen,
  bind: async ({ type, config }) => {
    worker.registerTrigger({ type, function_id: `${name}::on_event`, config })
  },
  channel: async ({ reader }) => {
    const channel = await createChannel(worker)
    channel.writer.sendMessage('{"progress": 1}')
    for (let i = 0; i < 20; i++) channel.writer.stream.write(Buffer.alloc(100_000, 'y'))
    channel.writer.stream.end()
    return worker.trigger({ function_id: reader, payload: { stream: channel.readerRef } })
  },
  drain: async ({ stream }) => ({ bytes: (await stream.readAll()).length }),
}

for (const [id, handler] of Object.entries(handlers)) worker.registerFunction(`${name}::${id}`, handler)
worker.registerTriggerType(
  { id: `${name}-bell`, description: 'rings' },
  {
    registerTrigger: async ({ function_id, config }) => {
      await worker.trigger({ function_id, payload: { rings: config } })
    },
    unregisterTrigger: async ({ id }) => {
      seen.push({ gone: id })
    },
  },
)
