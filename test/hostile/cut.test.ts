/* A handshake whose socket is reset after every number of bytes, in either direction, seen from both ends. */
import net from 'node:net'
import { expect, it, onTestFinished, vi } from 'vitest'
import { systemEnv, type Env, type Trace } from '../../src/env.ts'
import { errorCode } from '../../src/errors.ts'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import type { SecurityProtocol } from '../../src/security/security.ts'
import { createTls } from '../../src/security/tls/tls.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { hostileListener, patience, watchProcess } from './hostile.ts'

vi.setConfig({ testTimeout: 240_000 })
watchProcess()

interface Watched {
  node: Node
  /** Whatever ended a connection or an attempt at one, one entry each. */
  ends: { what: string; code: string | undefined; error: unknown }[]
}

async function watched(
  make: (privateKey: PrivateKey, env: Env) => SecurityProtocol,
  listen: string[],
): Promise<Watched> {
  const ends: Watched['ends'] = []
  const trace: Trace = (what, fields) => {
    if (!['dial.failed', 'node.inbound-refused', 'connection.closed'].includes(what)) return
    const error = fields['error'] ?? fields['reason']
    ends.push({ what, code: errorCode(error), error })
  }
  const privateKey = generateKey()
  const env = systemEnv(trace)
  const node = await createNode({ privateKey, listen, env, security: [make(privateKey, env)] })
  await node.start()
  onTestFinished(() => node.stop())
  return { node, ends }
}

/** Bytes that went through, each way. */
interface Passed {
  up: number
  down: number
  /** Where each piece ended. */
  ends: Record<Way, number[]>
}

type Way = 'up' | 'down'

const none = (): Passed => ({ up: 0, down: 0, ends: { up: [], down: [] } })

/** What each run says differs by a few frames: where fewer bytes come, the reset comes when this many ms were silent. */
const silentMs = 100

/** Forwards to `port`; resets both sides when `at` bytes have passed `way`. */
async function cutter(port: number): Promise<{ port: number; set: (way: Way, at: number) => Passed }> {
  let rule: { way: Way; at: number; passed: Passed } = { way: 'up', at: Infinity, passed: none() }
  const own = await hostileListener((socket) => {
    const { way, at, passed } = rule
    const upstream = net.connect({ port, host: '127.0.0.1', noDelay: true })
    let silent: NodeJS.Timeout | undefined
    const cut = (): void => {
      clearTimeout(silent)
      socket.resetAndDestroy()
      upstream.resetAndDestroy()
    }
    upstream.on('error', () => socket.resetAndDestroy())
    socket.on('error', () => upstream.resetAndDestroy())
    socket.on('close', () => {
      clearTimeout(silent)
      upstream.destroy()
    })
    upstream.on('close', () => socket.destroy())
    const forward = (from: net.Socket, to: net.Socket, direction: Way): void => {
      from.on('end', () => to.end())
      from.on('data', (chunk: Buffer) => {
        clearTimeout(silent)
        if (at !== Infinity) silent = setTimeout(cut, silentMs)
        const left = direction === way ? at - passed[direction] : Infinity
        const part = chunk.subarray(0, left)
        passed[direction] += part.length
        passed.ends[direction].push(passed[direction])
        // What passed has arrived before the reset follows.
        if (part.length > 0) to.write(part, () => void (part.length === left && setImmediate(cut)))
        else cut()
      })
    }
    upstream.once('connect', () => {
      if (at === 0) return cut()
      forward(socket, upstream, 'up')
      forward(upstream, socket, 'down')
    })
  })
  return {
    port: own,
    set: (way, at) => (rule = { way, at, passed: none() }).passed,
  }
}

/** Bytes around the end of a message at which every position is tried; between them only each so many. */
const near = 3
const step = process.env['RHIZA_CUT_ALL'] === undefined ? 17 : 1

const kinds: [string, (privateKey: PrivateKey, env: Env) => SecurityProtocol][] = [
  ['noise', (privateKey, env) => createNoise({ privateKey, env })],
  ['tls', (privateKey, env) => createTls({ privateKey, env })],
]

const typed = new Set(['reset', 'closed', 'truncated', 'unreachable', 'bad-handshake'])
/** Far below every deadline: a reset is heard of when it comes. */
const prompt = { timeout: 4_000, interval: 1 }

it.each(kinds)('%s: one typed error at each end, wherever it is cut', async (_name, make) => {
  const listener = await watched(make, ['/ip4/127.0.0.1/tcp/0'])
  const port = Number(multiaddr(String(listener.node.addrs()[0])).value('tcp'))
  const dialer = await watched(make, [])
  const { port: between, set } = await cutter(port)
  const addr = `/ip4/127.0.0.1/tcp/${between}/p2p/${listener.node.peerId}`

  // How much passes until both ends have their connection.
  const whole = set('up', Infinity)
  await dialer.node.dial(addr)
  await expect.poll(() => listener.node.connections().length, patience).toBe(1)
  const { up, down, ends } = structuredClone(whole)
  expect(Math.min(up, down)).toBeGreaterThan(150)
  await dialer.node.hangUp(listener.node.peerId)
  await expect.poll(() => listener.node.connections().length, patience).toBe(0)

  const failures = { up: 0, down: 0 }
  for (const [way, bytes] of [
    ['up', up],
    ['down', down],
  ] as const) {
    for (let at = 0; at < bytes; at++) {
      const isNear = at <= near || ends[way].some((end) => Math.abs(end - at) <= near)
      if (!isNear && at % step !== 0) continue
      dialer.ends.length = listener.ends.length = 0
      set(way, at)
      const outcome = await dialer.node.dial(addr).then(
        (connection) => connection.closed.then(({ reason }) => reason),
        (error: unknown) => {
          failures[way]++
          return error
        },
      )
      const where = `${way} ${at}`
      expect([where, errorCode(outcome) ?? String(outcome)]).toEqual([where, expect.toBeOneOf([...typed])])
      // The listener knows of each connection, and of its end, once. One that never sent a byte was taken in all the same.
      await expect
        .poll(() => listener.ends.length, { ...prompt, message: `the listener hears of it, ${where}` })
        .toBe(1)
      expect(dialer.ends.map(({ what }) => what)).toHaveLength(1)
      const odd = [...dialer.ends, ...listener.ends].filter(({ code }) => !typed.has(code ?? ''))
      expect(odd.map(({ what, code, error }) => `${where}: ${what} ${code} ${String(error)}`)).toEqual([])
      expect(dialer.node.connections()).toEqual([])
      expect(listener.node.connections()).toEqual([])
    }
  }
  // Most of what is cut is cut before the handshake is done.
  expect(failures.up).toBeGreaterThan(8)
  expect(failures.down).toBeGreaterThan(20)
})
