// A worker on the official npm SDK. It knows nothing of this engine; the address comes to it as III_URL.
import { registerWorker } from 'iii-sdk'

type Line = { name: string; price: number; count?: number }

const worker = registerWorker(process.env.III_URL ?? 'ws://127.0.0.1:49134', { workerName: 'cart' })

worker.registerFunction(
  'cart::total',
  async ({ lines }: { lines: Line[] }) => {
    const total = lines.reduce((sum, { price, count = 1 }) => sum + price * count, 0)
    return { total, version: 1 }
  },
  { description: 'Add up the lines of a cart' },
)

worker.registerFunction('cart::checkout', async ({ lines }: { lines: Line[] }) => {
  if (lines.length === 0) throw new Error('there is nothing in the cart')
  const { total } = await worker.trigger<{ lines: Line[] }, { total: number }>({
    function_id: 'cart::total',
    payload: { lines },
  })
  return { paid: total }
})
