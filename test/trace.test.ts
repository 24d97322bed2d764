/* The names of what is traced, and what a node tells about its life. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { streamCode } from '../src/close-codes.ts'
import { fakeEnv, systemEnv, traceProcess } from '../src/env.ts'
import { LimitError } from '../src/errors.ts'
import { createNode, type Node } from '../src/node.ts'
import { traceEvents, traceLine, type Trace, type TraceEvent } from '../src/trace.ts'
import { MemoryNetwork, memory } from '../src/transport/memory.ts'

const root = new URL('../src/', import.meta.url).pathname

const silent: Trace = () => {}

describe('the list of events', () => {
  it('has a name of the form layer.event and a sentence for each', () => {
    for (const [name, text] of Object.entries(traceEvents)) {
      expect(name).toMatch(/^[a-z]+\.[a-z]+(-[a-z]+)*$/)
      expect(text.length).toBeGreaterThan(10)
    }
  })

  it('is the list of what src traces: none is missing, none is dead', () => {
    const used = new Set<string>()
    for (const file of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.ts') || file === 'trace.ts') continue
      const source = readFileSync(join(root, file), 'utf8')
      for (const [, name = ''] of source.matchAll(/\btrace(?:\?\.)?\(\s*'([^']+)'/g)) used.add(name)
    }
    expect([...used].toSorted()).toEqual(Object.keys(traceEvents).toSorted())
  })
})

interface Traced {
  what: TraceEvent
  fields: Record<string, unknown>
}

async function pairOf(options: { maxConnectionsPerPeer?: number } = {}): Promise<{
  a: Node
  b: Node
  at: string
  traces: Traced[]
  of: (what: TraceEvent) => Record<string, unknown>[]
  stop: () => Promise<void>
}> {
  const network = new MemoryNetwork()
  const traces: Traced[] = []
  const trace: Trace = (what, fields) => traces.push({ what, fields })
  const a = await createNode({ transports: [memory(network)], listen: ['/memory/1'], trace, ...options })
  const b = await createNode({ transports: [memory(network)] })
  await a.start()
  const stop = async (): Promise<void> => {
    await Promise.all([a.stop(), b.stop()])
  }
  const of = (what: TraceEvent): Record<string, unknown>[] =>
    traces.filter((t) => t.what === what).map(({ fields }) => fields)
  return { a, b, at: String(a.addrs()[0]), traces, of, stop }
}

describe('a node with trace', () => {
  it('tells of a connection, who it is, its streams and their ends, each with its reason', async () => {
    const { a, b, at, of, stop } = await pairOf()
    a.handle('/limit/1', async (stream) => {
      await stream.read()
      throw new LimitError('tests', 1, 2)
    })
    const stream = await b.newStream(at, '/limit/1')
    await stream.write(Uint8Array.of(1))
    await expect(stream.read()).rejects.toThrow('stream reset by the remote: 0x1002 resource limit exceeded')
    await expect.poll(() => of('identify.done').length).toBe(1)
    await b.stop()
    await expect.poll(() => of('connection.closed').length).toBe(1)
    const [opened] = of('connection.opened')
    expect(opened).toMatchObject({ direction: 'inbound', transport: 'memory', muxer: '/yamux/1.0.0' })
    expect(String(opened?.['peer'])).toBe(b.peerId.toString())
    expect(of('stream.opened').map((f) => f['protocol'])).toContain('/limit/1')
    expect(of('stream.reset')).toContainEqual(
      expect.objectContaining({
        protocol: '/limit/1',
        by: 'local',
        code: streamCode.resourceLimitExceeded,
        text: '0x1002 resource limit exceeded',
      }),
    )
    expect(of('connection.inbound-stream-failed')[0]?.['error']).toBeInstanceOf(LimitError)
    expect(of('connection.closed')[0]).toMatchObject({
      connection: opened?.['connection'],
      by: 'remote',
      text: '0x1006 shutdown',
    })
    await stop()
  })

  it('tells of dials, those that work and those that do not', async () => {
    const { a, b, of, stop } = await pairOf()
    await expect(a.dial('/memory/77')).rejects.toThrow('nothing listens')
    expect(of('dial.failed').map(({ addr, error }) => [String(addr), (error as Error).message])).toEqual([
      ['/memory/77', expect.stringContaining('nothing listens')],
    ])
    expect(b.connections()).toEqual([])
    await stop()
  })

  it('tells why a connection is refused', async () => {
    const { b, at, of, stop } = await pairOf({ maxConnectionsPerPeer: 0 })
    await b.dial(at).catch(() => {})
    await expect.poll(() => of('node.inbound-refused').length).toBe(1)
    expect(of('connection.refused')[0]).toMatchObject({ direction: 'inbound', code: 0x1001 })
    await expect.poll(() => b.connections().length).toBe(0)
    await stop()
  })

  it('hears nothing more once the trace is gone, and never without one', async () => {
    expect(systemEnv().trace).toBeUndefined()
    traceProcess(silent)
    try {
      expect(systemEnv().trace).toBe(silent)
      expect(fakeEnv().trace).toBe(silent)
    } finally {
      traceProcess(undefined)
    }
    expect(systemEnv().trace).toBeUndefined()
  })
})

it('a line of a trace is JSON in which errors, ids and bytes have a text', async () => {
  const { peerId } = await createNode()
  const error = new LimitError('maxConnections', 1, 2)
  const fields = { peer: peerId, error, n: 5n, bytes: new Uint8Array(7), none: undefined, list: [1, { a: null }] }
  expect(JSON.parse(traceLine('node.inbound-refused', fields, 0))).toEqual({
    at: '1970-01-01T00:00:00.000Z',
    what: 'node.inbound-refused',
    peer: peerId.toString(),
    error: { name: 'LimitError', code: 'limit', message: error.message },
    n: '5',
    bytes: '7 bytes',
    list: [1, { a: null }],
  })
})
