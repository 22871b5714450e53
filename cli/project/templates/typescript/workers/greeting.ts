export type Greeting = { message: string }

export function greet({ name = 'world', excited = false }: { name?: string; excited?: boolean }): Greeting {
  return { message: `Hello, ${name}${excited ? '!' : '.'}` }
}
