// The official npm SDK, over WebSocket.
import { registerWorker } from 'iii-sdk'

const worker = registerWorker(process.env.III_URL, { workerName: 'node' })

// Count the spaces of a text.
worker.registerFunction('node::count', async ({ text }) => ({ spaces: text.split(' ').length - 1, version: 1 }))
// Call another function with a text of three words.
worker.registerFunction('node::ask', async ({ of }) => worker.trigger({ function_id: of, payload: { text: 'a b c' } }))
