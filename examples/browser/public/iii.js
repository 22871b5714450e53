// The page's end of the public protocol, as small as it can be: functions it offers, calls it makes.
// One JSON object a message; `docs/protocol.md` has them all.
export const connect = (url, name) =>
  new Promise((done, fail) => {
    const socket = new WebSocket(url)
    const functions = new Map()
    const waiting = new Map()
    const send = (message) => socket.send(JSON.stringify(message))

    const run = async ({ invocation_id, function_id, data }) => {
      const answer = { type: 'invocationresult', invocation_id, function_id }
      try {
        answer.result = (await functions.get(function_id)(data)) ?? null
      } catch (error) {
        answer.error = { code: 'invocation_failed', message: error.message }
      }
      if (invocation_id) send(answer)
    }

    const worker = {
      register: (id, handler) => {
        functions.set(id, handler)
        send({ type: 'registerfunction', id })
      },
      trigger: (function_id, data = {}) =>
        new Promise((resolve, reject) => {
          const invocation_id = crypto.randomUUID()
          waiting.set(invocation_id, { resolve, reject })
          send({ type: 'invokefunction', invocation_id, function_id, data })
        }),
    }

    // What the engine sends first once it has let us in, or the reason why it has not.
    const entered = () => {
      const data = { runtime: 'browser', name: `${name}:${crypto.randomUUID()}` }
      send({ type: 'invokefunction', function_id: 'engine::workers::register', action: { type: 'void' }, data })
      done(worker)
    }

    socket.onmessage = (event) => {
      const message = JSON.parse(event.data)
      const call = waiting.get(message.invocation_id)
      if (message.type === 'workerregistered') entered()
      else if (message.type === 'invokefunction') run(message)
      else if (message.type === 'error') fail(new Error(message.error.message))
      else if (message.type === 'invocationresult' && call) {
        waiting.delete(message.invocation_id)
        if (message.error) call.reject(Object.assign(new Error(message.error.message), message.error))
        else call.resolve(message.result)
      }
    }
    socket.onclose = () => fail(new Error('the engine closed the connection'))
  })
