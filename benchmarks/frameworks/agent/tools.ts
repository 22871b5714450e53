// What the agent can do, as an HTTP service of Express.
import express from 'express'

const app = express()
app.use(express.json())

const skies = ['sunny', 'cloudy', 'rainy']

app.post('/tools::weather', (request, response) => {
  const city = request.body?.city
  if (typeof city !== 'string') {
    response.status(422).json({ error: 'city is a string' })
  } else if (city === 'Atlantis') {
    response.status(500).json({ error: 'there is no weather under water' })
  } else {
    response.json({ sky: skies[city.length % skies.length], degrees: 10 + city.length })
  }
})

app.listen(3000, '127.0.0.1')
