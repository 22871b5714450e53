// What the agent can do: functions of a TypeScript worker on the official npm SDK.
import { registerWorker } from 'iii-sdk'

const worker = registerWorker(process.env.III_URL ?? 'ws://127.0.0.1:49134', { workerName: 'tools' })

const skies = ['sunny', 'cloudy', 'rainy']

worker.registerFunction(
  'tools::weather',
  async ({ city }: { city: string }) => {
    if (city === 'Atlantis') throw new Error('there is no weather under water')
    return { sky: skies[city.length % skies.length], degrees: 10 + city.length }
  },
  {
    description: 'Say what the weather in a city is like.',
    request_format: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    response_format: {
      type: 'object',
      properties: { sky: { type: 'string' }, degrees: { type: 'integer' } },
      required: ['sky', 'degrees'],
    },
  },
)
