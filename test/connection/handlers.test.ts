import { describe, expect, it, onTestFinished } from 'vitest'
import { Handlers } from '../../src/connection/handlers.ts'
import { streamCode } from '../../src/close-codes.ts'
import { concat, fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { LimitError, TimeoutError, UnavailableError, errorCode } from '../../src/errors.ts'
import { FakeClock, fakeEnv, systemEnv, type Trace } from '../../src/env.ts'
import type { ConnectionProtocols, HandleOptions, ProtocolStream, StreamHandler } from '../../src/host.ts'
import { deferred } from '../../src/inbox.ts'
import type { MuxerFactory } from '../../src/connection/upgrade.ts'
import { yamux } from '../../src/mux/yamux/yamux.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { Identify, identifyId } from '../../src/protocols/identify/wire.ts'
import { sameMajor, sameMinor } from '../../src/protocols/multistream/semver.ts'
import { agreementIn, encodeToken, encodeTokens, header } from '../../src/protocols/multistream/wire.ts'
import { BufferedStream, prefixed } from '../../src/stream.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'
import { tcp } from '../../src/transport/tcp.ts'

const ignore: StreamHandler = () => {}

function table(): Handlers & { serve(id: string, options?: HandleOptions): StreamHandler } {
  const handlers = new Handlers(() => {}, fakeEnv())
  return Object.assign(handlers, {
    serve(id: string, options: HandleOptions = {}): StreamHandler {
      const handler = ignore.bind(undefined)
      handlers.add(id, handler, options)
      return handler
    },
  })
}

describe('the table of handlers', () => {
  it('serves the versions that a range takes, and announces the exact id alone', () => {
    const handlers = table()
    const handler = handlers.serve('/app', { version: '1.4.0', accepts: '^1.0.0' })
    expect(handlers.ids()).toEqual(['/app/1.4.0'])
    for (const id of ['/app/1.4.0', '/app/1.0.0', '/app/1.10.3']) expect(handlers.find(id)?.handler).toBe(handler)
    for (const id of [
      '/app/2.0.0',
      '/app/0.9.0',
      '/app',
      '/app/1.0',
      '/app/x/1.0.0',
      '/app/1.5.0-beta',
      '/ap/1.0.0',
      '',
    ])
      expect(handlers.find(id)).toBeUndefined()
  })

  it('serves the exact id alone where nothing else is said', () => {
    const handlers = table()
    handlers.serve('/app', { version: '1.4.0' })
    expect(handlers.find('/app/1.4.0')).toBeDefined()
    expect(handlers.find('/app/1.4.1')).toBeUndefined()
  })

  it('asks a predicate with their version, ours and the id, and knows the two classic rules', () => {
    const handlers = table()
    const seen: unknown[] = []
    handlers.serve('/odd', {
      version: '1.0.0',
      accepts: (theirs, ours, id) => {
        seen.push([theirs.minor, ours.major, id])
        return theirs.minor % 2 === 1
      },
    })
    handlers.serve('/minor', { version: '1.2.3', accepts: sameMinor })
    handlers.serve('/major', { version: '1.2.3', accepts: sameMajor })
    expect(handlers.find('/odd/7.3.0')).toBeDefined()
    expect(handlers.find('/odd/7.4.0')).toBeUndefined()
    expect(seen).toEqual([
      [3, 1, '/odd/7.3.0'],
      [4, 1, '/odd/7.4.0'],
    ])
    const served = ['/minor/1.2.9', '/minor/1.0.0', '/minor/1.3.0', '/major/1.9.0', '/major/2.0.0']
    expect(served.filter((id) => handlers.find(id) !== undefined)).toEqual([
      '/minor/1.2.9',
      '/minor/1.0.0',
      '/major/1.9.0',
    ])
  })

  it('has several versions of one name: an exact id comes first, then the highest version that accepts', () => {
    const handlers = table()
    const one = handlers.serve('/app', { version: '1.4.0', accepts: '*' })
    const two = handlers.serve('/app', { version: '2.10.0', accepts: '>=1.5.0' })
    const old = handlers.serve('/app', { version: '2.9.0', accepts: '>=2.0.0' })
    const exact = handlers.serve('/app/1.6.0')
    const found = (id: string): StreamHandler | undefined => handlers.find(id)?.handler
    expect([found('/app/1.0.0'), found('/app/1.7.0'), found('/app/2.9.1'), found('/app/1.6.0')]).toEqual([
      one,
      two,
      two,
      exact,
    ])
    expect(found('/app/2.9.0')).toBe(old)
    handlers.remove('/app/2.10.0')
    expect([found('/app/1.7.0'), found('/app/2.9.1'), found('/app/2.10.0')]).toEqual([one, old, old])
    handlers.remove('/app')
    expect(handlers.ids()).toEqual(['/app/1.6.0'])
    expect(found('/app/1.7.0')).toBeUndefined()
  })

  it.each([
    ['a version that is none', { version: '1.4' }, TypeError],
    ['a range that is none', { version: '1.4.0', accepts: 'one or two' }, TypeError],
    ['a range that is too long', { version: '1.4.0', accepts: '1'.repeat(600) }, RangeError],
    ['a range without a version', { accepts: '^1.0.0' }, TypeError],
    ['an id that is taken', { version: '1.0.0' }, TypeError],
    ['33 capabilities', { capabilities: Array.from({ length: 33 }, String) }, RangeError],
    ['an empty capability', { capabilities: [''] }, RangeError],
    ['a capability of 65 bytes', { capabilities: ['x'.repeat(65)] }, RangeError],
  ])('refuses %s and keeps nothing of it', (_what, options, error) => {
    const handlers = table()
    handlers.serve('/app', { version: '1.0.0' })
    expect(() => handlers.add(['/other', '/app'], ignore, options)).toThrow(error)
    expect(handlers.ids()).toEqual(['/app/1.0.0'])
    expect(handlers.find('/app/1.0.1')).toBeUndefined()
  })

  it('refuses capabilities that do not fit into one answer, and stops answering with the last of them', () => {
    const handlers = table()
    const options = { capabilities: Array.from({ length: 32 }, (_, i) => `${i}`.padEnd(64, 'x')) }
    // 32 of 66 bytes, an id of up to 7, eight more: 2,128 fit 15 times.
    for (let i = 0; i < 15; i++) handlers.serve(`/app/${i}`, options)
    expect(() => handlers.serve('/app/15', options)).toThrow(LimitError)
    expect(handlers.ids()).toContain('/rhiza/capabilities/1.0.0')
    for (let i = 0; i < 15; i++) handlers.remove(`/app/${i}`)
    expect(handlers.ids()).toEqual([])
  })
})

async function started(options: NodeOptions): Promise<Node> {
  const node = await createNode(options)
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

interface Two {
  a: Node
  b: Node
  addr: string
  traces: [string, Record<string, unknown>][]
}

/** b listens in memory; what a traces is kept. */
async function two(more: NodeOptions = {}): Promise<Two> {
  const network = new MemoryNetwork()
  const traces: [string, Record<string, unknown>][] = []
  const trace: Trace = (what, fields) => void traces.push([what, fields])
  const options = { transports: [memory(network)], listen: ['/memory/0'] }
  const a = await started({ ...options, env: systemEnv(trace), ...more })
  const b = await started(options)
  return { a, b, addr: String(b.addrs()[0]), traces }
}

const names: StreamHandler = async (stream, { protocol }) => {
  await stream.write(fromUtf8(`${stream.protocol} ${protocol}`))
  await stream.closeWrite()
}

async function told(stream: ProtocolStream): Promise<string> {
  await stream.closeWrite()
  return toUtf8(await new BufferedStream(stream).readAll(1000))
}

const versioned = (node: Node, name: string, versions: readonly string[], options: HandleOptions = {}): void => {
  for (const version of versions) node.handle(name, names, { version, ...options })
}

describe('a query', () => {
  it('waits for identify and takes the highest version that is announced and allowed', async () => {
    const { a, b, addr, traces } = await two()
    versioned(b, '/app', ['1.2.0', '1.10.0', '1.9.0', '2.0.0', '1.11.0-beta'])
    // Nothing is known yet when this is called: the dial itself comes first.
    const stream = await a.newStream(addr, { name: '/app', range: '^1.1.0' })
    expect(stream.protocol).toBe('/app/1.10.0')
    expect(await told(stream)).toBe('/app/1.10.0 /app/1.10.0')
    expect(stream.tried).toEqual([])
    const any = await a.newStream(addr, { name: '/app', range: ({ minor }) => minor < 3 })
    expect(any.protocol).toBe('/app/2.0.0')
    expect((await a.newStream(addr, { name: '/app' })).protocol).toBe('/app/2.0.0')
    expect(traces.filter(([what]) => what === 'connection.fell-back')).toEqual([])
  })

  it('opens in one round trip: what identify announced needs no answer first', async () => {
    const { a, b, addr } = await two()
    const held = deferred<void>()
    const handler: StreamHandler = async (stream) => {
      await held.promise
      await stream.closeWrite()
    }
    b.handle('/app', handler, { version: '1.0.0' })
    const stream = await a.newStream(addr, { name: '/app', range: '1' })
    expect(stream.protocol).toBe('/app/1.0.0')
    await stream.write(fromUtf8('early'))
    held.resolve()
    await stream.closeWrite()
    expect(await stream.read()).toBeNull()
  })

  it('says what was asked and what the peer offers when nothing is allowed', async () => {
    const { a, b, addr } = await two()
    versioned(b, '/app', ['1.0.0', '2.0.0'])
    const error = await a.newStream(addr, { name: '/app', range: '3.x' }).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UnavailableError)
    expect(error).toMatchObject({ code: 'no-protocol' })
    expect((error as Error).message).toMatch(/\/app 3\.x; it offers \/app\/1\.0\.0, \/app\/2\.0\.0/)
    expect((error as UnavailableError).tried.map(({ what }) => what)).toEqual(['/app/1.0.0', '/app/2.0.0'])
    await expect(a.newStream(addr, { name: '/none' })).rejects.toThrow(/\/none \*; it offers .*\/app\/2\.0\.0/)
  })

  it.each<[string, ConnectionProtocols, typeof Error]>([
    ['a range that is none', { name: '/app', range: 'x.y.z' }, TypeError],
    ['a name with a slash at its end', { name: '/app/' }, TypeError],
    ['an empty name', { name: '' }, TypeError],
    ['a candidate of another name', { name: '/app', candidates: ['/other/1.0.0'] }, TypeError],
    ['a candidate outside of the range', { name: '/app', range: '^2', candidates: ['/app/1.0.0'] }, TypeError],
    ['65 candidates', { name: '/app', candidates: Array.from({ length: 65 }, (_, i) => `/app/1.0.${i}`) }, RangeError],
  ])('with %s is refused', async (_what, query, error) => {
    const { a, addr } = await two()
    await expect(a.newStream(addr, query)).rejects.toThrow(error)
    expect(a.connections()[0]?.streams.filter(({ protocol }) => protocol.startsWith('/app'))).toEqual([])
  })

  it('tries its candidates in order where identify announced none, and shows which were refused', async () => {
    const { a, b, addr, traces } = await two()
    b.handle('/app', names, { version: '1.4.0', accepts: '<=1.4.0' })
    b.unhandle(identifyId)
    const query = {
      name: '/app',
      range: '^1.1.0',
      candidates: ['/app/1.6.0', '/app/1.5.0', '/app/1.2.0', '/app/1.1.0'],
    }
    const stream = await a.newStream(addr, query)
    expect(stream.protocol).toBe('/app/1.2.0')
    expect(stream.tried).toEqual([
      { what: '/app/1.6.0', reason: 'not supported by the peer' },
      { what: '/app/1.5.0', reason: 'not supported by the peer' },
    ])
    expect(await told(stream)).toBe('/app/1.2.0 /app/1.2.0')
    expect(traces.find(([what]) => what === 'connection.fell-back')?.[1]).toMatchObject({
      protocol: '/app/1.2.0',
      tried: stream.tried,
    })
    const none = await a
      .newStream(addr, { name: '/app', candidates: ['/app/3.0.0', '/app/2.0.0'] })
      .catch((e: unknown) => e)
    expect(none).toMatchObject({ code: 'no-protocol' })
    expect((none as UnavailableError).tried.map(({ what }) => what)).toEqual(['/app/3.0.0', '/app/2.0.0'])
    await expect(a.newStream(addr, { name: '/app' })).rejects.toThrow(/has not told what it speaks/)
  })

  it('reaches a version that is served by a range and not announced through its candidates', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', names, { version: '1.4.0', accepts: '^1.0.0' })
    const stream = await a.newStream(addr, { name: '/app', range: '~1.1.0', candidates: ['/app/1.1.0'] })
    expect(await told(stream)).toBe('/app/1.1.0 /app/1.1.0')
    expect(b.protocols()).toContain('/app/1.4.0')
    expect(b.protocols()).not.toContain('/app/1.1.0')
  })

  it('gives up waiting for identify at its deadline, and at once when it is aborted', async () => {
    const clock = new FakeClock()
    const { a, b, addr } = await two({ env: { ...systemEnv(), clock } })
    b.unhandle(identifyId)
    b.handle(identifyId, () => new Promise(() => {}))
    versioned(b, '/app', ['1.0.0'])
    const connection = await a.dial(addr)
    const timers = clock.waiting
    const late = connection.newStream({ name: '/app' }, { timeoutMs: 2_000 })
    const controller = new AbortController()
    const gone = connection.newStream({ name: '/app' }, { signal: controller.signal })
    const results = Promise.allSettled([late, gone])
    await expect.poll(() => clock.waiting).toBe(timers + 2)
    const reason = new Error('enough')
    controller.abort(reason)
    await clock.advance(2_000)
    const [first, second] = await results
    expect(first).toMatchObject({ status: 'rejected', reason: expect.any(TimeoutError) as unknown })
    expect(second).toMatchObject({ status: 'rejected', reason })
    // With candidates it does not matter that identify never comes, once it has failed.
    const patient = connection.newStream({ name: '/app', candidates: ['/app/1.0.0'] })
    await expect.poll(() => clock.waiting).toBe(timers + 1)
    await clock.advance(4_000)
    expect((await patient).protocol).toBe('/app/1.0.0')
    await b.stop()
    await connection.closed
    expect(clock.waiting).toBe(0)
  })

  it('is not confused by a peer that announces 1,024 versions, some of them absurd', async () => {
    const { a, b, addr } = await two()
    const absurd = [
      '99999999999999999999.0.0',
      `1.0.0-${'9'.repeat(900)}`,
      '1..0',
      '1.0.0\u0000',
      '-1.0.0',
      '01.0.0',
      'NaN.0.0',
      '',
    ]
    const protocols = [
      ...absurd.map((version) => `/app/${version}`),
      ...Array.from({ length: 500 }, (_, i) => `/app/1.${i}.${500 - i}`),
      ...Array.from({ length: 516 }, (_, i) => `/app/2.0.${i}-rc.${i}`),
    ]
    expect(protocols).toHaveLength(1024)
    b.unhandle(identifyId)
    b.handle(identifyId, async (stream) => {
      for (let at = 0; at < protocols.length; at += 200)
        await stream.write(...prefixed(Identify.encode({ protocols: protocols.slice(at, at + 200) })))
      await stream.closeWrite()
    })
    b.handle('/app/1.499.1', names)
    const stream = await a.newStream(addr, { name: '/app', range: '>=1.0.0' })
    expect(await told(stream)).toBe('/app/1.499.1 /app/1.499.1')
    const error = await a.newStream(addr, { name: '/app', range: '^7' }).catch((e: unknown) => e)
    expect((error as UnavailableError).tried).toHaveLength(16)
    expect((error as Error).message).toMatch(/and 1000 more/)
    expect((error as Error).message.length).toBeLessThan(3_000)
    const other = await a.newStream(addr, { name: '/other' }).catch((e: unknown) => e)
    expect((other as Error).message).not.toMatch(/[^\x20-\x7e]/)
    expect((other as Error).message.length).toBeLessThan(3_000)
  })
})

describe('a chain of ids', () => {
  it('falls back to what is announced, and shows it', async () => {
    const { a, b, addr, traces } = await two()
    b.handle('/a/1.0.0', names)
    await a.identify(addr)
    const stream = await a.newStream(addr, ['/a/2.0.0', '/a/1.0.0'])
    expect(stream.protocol).toBe('/a/1.0.0')
    expect(stream.tried).toEqual([{ what: '/a/2.0.0', reason: 'not announced by the peer' }])
    expect(await told(stream)).toBe('/a/1.0.0 /a/1.0.0')
    expect(traces.filter(([what]) => what === 'connection.fell-back')).toHaveLength(1)
    expect((await a.newStream(addr, ['/a/1.0.0', '/a/2.0.0'])).tried).toEqual([])
    expect((await a.newStream(addr, '/a/1.0.0')).tried).toEqual([])
  })
})

const mistaken = (): boolean => {
  throw new Error('a mistake of ours')
}

describe('a handler of a range', () => {
  it('remembers no id that a peer made up, or the places for those that repeat would soon be taken', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', names, { version: '1.4.0', accepts: '^1.0.0' })
    await told(await a.newStream(addr, ['/refused/1.0.0', '/app/1.0.0+made-up']))
    expect(agreementIn(encodeTokens(header, '/app/1.0.0+made-up'))).toBeUndefined()
    await told(await a.newStream(addr, '/app/1.4.0'))
    expect(agreementIn(encodeTokens(header, '/app/1.4.0'))).toBeDefined()
  })

  it('is limited in all versions together', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', () => new Promise(() => {}), { version: '1.0.0', accepts: '^1.0.0', maxInboundStreams: 2 })
    const first = await a.newStream(addr, '/app/1.0.0')
    await a.newStream(addr, '/app/1.0.1')
    /** The error that ends a third one; undefined while it is served. */
    const third = async (): Promise<unknown> => {
      try {
        const stream = await a.newStream(addr, '/app/1.0.2')
        const late = new Promise<null>((resolve) => setTimeout(resolve, 20, null))
        await Promise.race([stream.read(), late])
        stream.reset()
        return undefined
      } catch (error) {
        return error
      }
    }
    expect(await third()).toMatchObject({ info: { by: 'remote', code: streamCode.resourceLimitExceeded } })
    first.reset()
    await expect.poll(third).toBeUndefined()
  })

  it('echoes what was proposed byte for byte, build metadata too, whatever was proposed before', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', names, { version: '1.4.0', accepts: '^1.0.0' })
    for (let i = 0; i < 300; i++) {
      const stream = await a.newStream(addr, `/app/1.0.${i}+build.${i}`)
      expect(await told(stream)).toBe(`/app/1.0.${i}+build.${i} `.repeat(2).trim())
    }
  })

  it('whose predicate throws costs that stream alone', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', names, { version: '1.4.0', accepts: mistaken })
    await expect(a.newStream(addr, '/app/1.0.0')).rejects.toThrow()
    expect(await told(await a.newStream(addr, '/app/1.4.0'))).toBe('/app/1.4.0 /app/1.4.0')
  })
})

describe('a handler bound to transports', () => {
  it('is served over those and refused over others, on one node that has both', async () => {
    const network = new MemoryNetwork()
    const both = { transports: [tcp(), memory(network)], listen: ['/ip4/127.0.0.1/tcp/0', '/memory/0'] }
    const [near, far, b] = [await started(both), await started(both), await started(both)]
    b.handle('/tcp-only/1.0.0', names, { transports: ['tcp'] })
    b.handle('/app', names, { version: '1.0.0', accepts: '^1.0.0', transports: ['memory'] })
    const [overTcp = '', overMemory = ''] = ['/tcp/', '/memory/'].map(
      (part) =>
        b
          .addrs()
          .map(String)
          .find((x) => x.includes(part)) ?? '',
    )
    await far.dial(overTcp)
    await near.dial(overMemory)
    expect(far.connections()[0]?.transport).toBe('tcp')
    expect(near.connections()[0]?.transport).toBe('memory')
    expect(await told(await far.newStream(b.peerId, '/tcp-only/1.0.0'))).toContain('/tcp-only/1.0.0')
    expect(await told(await near.newStream(b.peerId, '/app/1.3.0'))).toContain('/app/1.3.0')
    const shown = async (node: Node): Promise<readonly string[]> => (await node.identify(b.peerId)).protocols
    expect(await shown(far)).toContain('/tcp-only/1.0.0')
    expect(await shown(near)).not.toContain('/tcp-only/1.0.0')
    expect(await shown(near)).toContain('/app/1.0.0')
    expect(await shown(far)).not.toContain('/app/1.0.0')
    const refused = async (node: Node, id: string): Promise<unknown> =>
      errorCode(
        await node
          .newStream(b.peerId, id)
          .then((s) => s.read())
          .catch((e: unknown) => e),
      )
    expect(await refused(near, '/tcp-only/1.0.0')).toBe('no-protocol')
    expect(await refused(far, '/app/1.3.0')).toBe('no-protocol')
    expect(await refused(far, '/app/1.0.0')).toBe('no-protocol')
  })
})

describe('an optimistic opening', () => {
  it('whose protocol is gone delivers nothing, not even data that reads like a proposal', async () => {
    const { a, b, addr } = await two()
    b.handle('/a/1.0.0', names)
    const reached: string[] = []
    b.handle('/admin/1.0.0', async (stream) => {
      reached.push(stream.protocol)
      await stream.write(fromUtf8('secret'))
      await stream.closeWrite()
    })
    await a.identify(addr)
    const [connection] = a.connections()
    const stream = await connection?.newStream('/a/1.0.0')
    // The push has not arrived when this leaves: na comes back, and what follows it is for another protocol.
    b.unhandle('/a/1.0.0')
    await stream?.write(encodeToken('/admin/1.0.0'), fromUtf8('do it'))
    await expect(stream?.read()).rejects.toMatchObject({ code: 'no-protocol' })
    expect(await stream?.closed).toMatchObject({ by: 'local' })
    await expect(stream?.read()).rejects.toThrow()
    expect(reached.length).toBeLessThanOrEqual(1)
  })

  it('is made for announced protocols alone: to others no byte of data goes before they agree', async () => {
    const { a, b, addr } = await two()
    b.unhandle(identifyId)
    b.handle('/a/1.0.0', names)
    const connection = await a.dial(addr)
    await expect.poll(() => 'identifying' in connection && connection.identifying).toBe(undefined)
    expect(connection.protocols).toBeUndefined()
    await expect(connection.newStream('/b/1.0.0')).rejects.toMatchObject({ code: 'no-protocol' })
    const stream = await connection.newStream('/a/1.0.0')
    expect(await told(stream)).toBe('/a/1.0.0 /a/1.0.0')
  })

  it('is made without an announcement for whoever asks for it, and the first read tells of a refusal', async () => {
    const { a, b, addr } = await two()
    b.unhandle(identifyId)
    b.handle('/a/1.0.0', names)
    const connection = await a.dial(addr)
    const good = await connection.newStream('/a/1.0.0', { optimistic: true })
    expect(await told(good)).toBe('/a/1.0.0 /a/1.0.0')
    const stream = await connection.newStream('/b/1.0.0', { optimistic: true })
    await stream.write(fromUtf8('do it'))
    await expect(stream.read()).rejects.toMatchObject({ code: 'no-protocol' })
    expect(await stream.closed).toMatchObject({ by: 'local' })
  })

  it('keeps nothing of streams whose answer nobody reads', async () => {
    const made: { session: { live(): Iterable<unknown> } }[] = []
    const inner = yamux()
    const kept: MuxerFactory = {
      id: inner.id,
      create(...around) {
        const muxer = inner.create(...around)
        made.push(muxer as unknown as (typeof made)[number])
        return muxer
      },
    }
    const network = new MemoryNetwork()
    const options = { transports: [memory(network)], listen: ['/memory/0'] }
    const [a, b] = [await started({ ...options, muxers: [kept] }), await started(options)]
    const got: string[] = []
    b.handle('/sink/1', async (stream) => {
      const all: Uint8Array[] = []
      for await (const bytes of stream) all.push(bytes)
      await stream.closeWrite()
      got.push(concat(all).toString())
    })
    await a.identify(String(b.addrs()[0]))
    const reads: Promise<unknown>[] = []
    const read = (s: ProtocolStream): unknown => reads.push(s.read())
    const steps: ((stream: ProtocolStream) => unknown)[][] = [
      [(s) => s.write(Uint8Array.of(1)), (s) => s.closeWrite()],
      [(s) => s.write(Uint8Array.of(2)), (s) => s.closeWrite(), (s) => s.closeRead()],
      [(s) => s.closeRead(), (s) => s.write(Uint8Array.of(3)), (s) => s.closeWrite()],
      [(s) => s.closeRead(), (s) => s.closeWrite()],
      [(s) => s.closeWrite()],
      [(s) => s.closeWrite(), read],
      [read, (s) => s.closeWrite()],
      [read, (s) => s.closeRead(), (s) => s.closeWrite()],
    ]
    for (const all of steps) {
      const stream = await a.newStream(b.peerId, '/sink/1')
      for (const step of all) await step(stream)
      expect(await stream.closed).toMatchObject({ code: 0 })
    }
    expect(await Promise.all(reads)).toEqual([null, null, null])
    expect(got).toEqual(['1', '2', '3', '', '', '', '', ''])
    await expect.poll(() => made.flatMap(({ session }) => Array.from(session.live()))).toEqual([])
  })

  it('closes for writing at once, before any answer, and ends when the peer refuses', async () => {
    const { a, b, addr } = await two()
    b.handle('/a/1.0.0', names)
    await a.identify(addr)
    const stream = await a.connections()[0]?.newStream('/a/1.0.0')
    b.unhandle('/a/1.0.0')
    await stream?.write(fromUtf8('write only'))
    await stream?.closeWrite()
    stream?.closeRead()
    await stream?.closed
    expect(a.connections()[0]?.streams.filter(({ protocol }) => protocol === '/a/1.0.0')).toEqual([])
  })
})
