import { registerWorker } from 'iii-sdk'
import { greet } from './greeting.ts'

const worker = registerWorker(process.env.III_URL ?? 'ws://127.0.0.1:49134', { workerName: 'hello' })

worker.registerFunction('hello::greet', async (payload: Parameters<typeof greet>[0]) => greet(payload ?? {}), {
  description: 'Greet by name.',
  request_format: {
    type: 'object',
    properties: { name: { type: 'string' }, excited: { type: 'boolean' } },
    additionalProperties: false,
  },
  response_format: { type: 'object', properties: { message: { type: 'string' } }, required: ['message'] },
})
