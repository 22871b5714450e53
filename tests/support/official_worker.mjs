// A worker on the published npm SDK, driven by calls: `node official_worker.mjs URL NAME`.
import { registerWorker, TriggerAction } from 'iii-sdk'
import { http } from '@iii-dev/helpers/http'
import { Logger } from '@iii-dev/helpers/observability'
import { createChannel } from 'iii-sdk/helpers'

const [url, name] = process.argv.slice(2)
const worker = registerWorker(url, { workerName: name })
const seen = []
const bound = {}

const handlers = {
  echo: async (data) => data,
  describe: async (data, metadata) => ({ data, metadata: metadata ?? null }),
  fail: async () => {
    throw new Error('this is why')
  },
  call: async ({ function_id, payload, void: isVoid, queue, wait }) => {
    try {
      const enqueue = queue && { ...TriggerAction.Enqueue({ queue }), ...(wait && { wait }) }
      const action = isVoid ? TriggerAction.Void() : enqueue || undefined
      return { result: (await worker.trigger({ function_id, payload, action })) ?? null }
    } catch (error) {
      return { code: error.code, message: error.message }
    }
  },
  big: async ({ function_id, size }) => {
    const text = 'x'.repeat(size)
    return (await worker.trigger({ function_id, payload: text })) === text
  },
  echo_async: async (data) => data,
  on_event: async (data, metadata) => {
    seen.push(metadata === undefined ? data : { data, metadata })
  },
  events: async () => seen,
  bind: async ({ type, function_id = `${name}::on_event`, config, metadata }) => {
    bound[type] = worker.registerTrigger({ type, function_id, config, metadata })
  },
  unbind: async ({ type }) => {
    bound[type].unregister()
  },
  register: async ({ id, url }) => {
    worker.registerFunction(id, url ? { url } : async () => `registered by ${name}`)
  },
  visit: async ({ url, token, calls }) => {
    const headers = { Authorization: `Bearer ${token}` }
    const options = { workerName: `${name}-visitor`, headers, otel: { enabled: false } }
    const visitor = registerWorker(url, options)
    const outcomes = {}
    for (const function_id of calls) {
      const outcome = visitor.trigger({ function_id, payload: { by: name } })
      outcomes[function_id] = await outcome.catch((error) => error.code)
    }
    return outcomes
  },
  log: async ({ text }) => new Logger(undefined, name).info(text),
  page: async ({ method, body }) => ({ status_code: 201, headers: { 'x-by': name }, body: { method, ...body } }),
  streamed: http(async (request, response) => {
    response.status(202)
    response.headers({ 'content-type': 'text/plain' })
    const body = await request.request_body.readAll()
    for (let i = 0; i < 3; i++) response.stream.write(body)
    response.stream.end()
  }),
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
