import assert from 'node:assert/strict'
import { test } from 'node:test'
import { greet } from '../workers/greeting.ts'

test('a name is greeted', () => {
  assert.deepEqual(greet({ name: 'Ada', excited: true }), { message: 'Hello, Ada!' })
})
