// The page as a worker: it calls functions of the project, and the project calls one of the page's.
import { connect } from './iii.js'

const show = (text) => {
  const note = document.createElement('li')
  note.textContent = text
  document.getElementById('notes').append(note)
}

const { ticket } = await (await fetch('/ticket', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' })).json()
// The listener for pages, at the engine's machine.
const worker = await connect(`ws://${location.hostname}:49135/?ticket=${ticket}`, 'board')

worker.register('notice', ({ text }) => show(text))
const { notes } = await worker.trigger('board::join', { ticket })
notes.forEach(show)

document.querySelector('form').onsubmit = (event) => {
  event.preventDefault()
  worker.trigger('board::post', { text: event.target.text.value })
  event.target.reset()
}

// Everything that the listener does not expose is forbidden, whether it exists or not.
const refusal = await worker.trigger('gate::auth').catch((error) => error.code)
document.getElementById('state').textContent = `connected; gate::auth is ${refusal}`
