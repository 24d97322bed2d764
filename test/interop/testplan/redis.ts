/* As much of Redis as the suites need: RESP2 commands one after the other over a socket of their own. */
import net from 'node:net'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

export type Reply = string | number | null | Reply[]

/** Bytes of a reply; ours are addresses. */
const maxReplyBytes = 64 * 1024
const retryMs = 100

/** The reply at the head of `text` and where it ends; undefined while it is not all there. */
function parse(text: string, at = 0): { reply: Reply; end: number } | undefined {
  const lineEnd = text.indexOf('\r\n', at)
  if (lineEnd < 0) return undefined
  const kind = text[at]
  const line = text.slice(at + 1, lineEnd)
  const next = lineEnd + 2
  if (kind === '+') return { reply: line, end: next }
  if (kind === '-') throw new Error(`Redis: ${line}`)
  const size = Number(line)
  if (kind === ':') return { reply: size, end: next }
  if (!Number.isInteger(size)) throw new Error(`Redis sent ${JSON.stringify(text.slice(at, lineEnd))}`)
  if (size < 0) return { reply: null, end: next }
  if (kind === '$')
    return text.length < next + size + 2 ? undefined : { reply: text.slice(next, next + size), end: next + size + 2 }
  if (kind !== '*') throw new Error(`Redis sent ${JSON.stringify(text.slice(at, lineEnd))}`)
  const replies: Reply[] = []
  let end = next
  for (let i = 0; i < size; i++) {
    const item = parse(text, end)
    if (item === undefined) return undefined
    replies.push(item.reply)
    end = item.end
  }
  return { reply: replies, end }
}

/** Sends one command to the server and resolves to its reply. Latin-1 both ways: keys and addresses are ASCII. */
async function command(socket: net.Socket, words: readonly string[], signal: AbortSignal): Promise<Reply> {
  const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`)
  socket.write(`*${words.length}\r\n${parts.join('')}`)
  let text = ''
  for (;;) {
    const [chunk] = (await once(socket, 'data', { signal })) as [Buffer]
    text += chunk.toString('latin1')
    const found = parse(text)
    if (found !== undefined) return found.reply
    if (text.length > maxReplyBytes) throw new Error(`Redis sent more than ${maxReplyBytes} bytes`)
  }
}

/** Runs the commands on a connection of their own; resolves to the last reply. */
export async function redis(
  { host, port }: { host: string; port: number },
  commands: readonly (readonly string[])[],
  signal: AbortSignal,
): Promise<Reply> {
  const socket = net.connect({ host, port, signal })
  const ended = once(socket, 'end').then(() => Promise.reject(new Error('Redis hung up')))
  ended.catch(() => {})
  try {
    await once(socket, 'connect', { signal })
    let reply: Reply = null
    for (const words of commands) reply = await Promise.race([command(socket, words, signal), ended])
    return reply
  } finally {
    socket.on('error', () => {})
    socket.destroy()
  }
}

/** Repeats `ask` until it has an answer: the server and the other peer come up when they will. */
export async function until<T>(
  what: string,
  timeoutMs: number,
  ask: (signal: AbortSignal) => Promise<T | undefined>,
): Promise<T> {
  const signal = AbortSignal.timeout(timeoutMs)
  let why = 'nothing there'
  while (!signal.aborted) {
    try {
      const answer = await ask(signal)
      if (answer !== undefined) return answer
    } catch (error) {
      if (!signal.aborted) why = error instanceof Error ? error.message : String(error)
    }
    await sleep(retryMs)
  }
  throw new Error(`${what}: not within ${timeoutMs} ms (${why})`)
}
