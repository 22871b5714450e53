// One line for each note. After a break the browser connects again by itself and gets all notes anew.
const seen = new Set();

new EventSource("/events").onmessage = (message) => {
  const note = JSON.parse(message.data);
  if (seen.has(note.id)) return;
  seen.add(note.id);
  const line = document.createElement("li");
  line.textContent = note.text;
  if (note.picture) line.append(Object.assign(document.createElement("img"), { src: note.picture, alt: note.text }));
  document.getElementById("notes").prepend(line);
};
