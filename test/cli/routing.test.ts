/* Commands that find peers themselves, each in a process of its own, in a DHT of their own on loopback. */
import { readFile, stat, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { generateKey } from '../../src/peer/keys.ts'
import { rhiza, rhizaJson, rhizaServe, rhizaStart, scratch, type Scratch, type Served } from './rhiza.ts'

vi.setConfig({ testTimeout: 90_000, hookTimeout: 90_000 })

const prefix = ['--dht-prefix', '/rhiza-test']

let s: Scratch
let a: Served
let b: Served
let enter: string[]
/** What A has told the DHT. */
const provided: { cid: string; peers: number }[] = []

beforeAll(async () => {
  s = await scratch()
  b = await rhizaServe(s.at('b'), ['--dht', 'server', ...prefix])
  enter = ['--bootstrap', b.addr, ...prefix]
  a = await rhizaServe(s.at('a'), ['--dht', 'server', ...enter])
  const { stdout } = a.child
  if (stdout === null) throw new Error('no stdout')
  createInterface({ input: stdout }).on('line', (line) => {
    const record = JSON.parse(line) as { event: string; cid: string; peers: number }
    if (record.event === 'provided') provided.push(record)
  })
})
afterAll(async () => {
  await Promise.all([a.stop(), b.stop()])
  await s.remove()
})

function errorOf(stderr: string): { code: string; message: string } {
  const line = stderr.trim().split('\n').at(-1) ?? ''
  return (JSON.parse(line) as { error: { code: string; message: string } }).error
}

async function added(name: string, content: string | Uint8Array): Promise<string> {
  await writeFile(s.at(name), content)
  const [record] = await rhizaJson(['add', s.at(name)], { repo: s.at('a') })
  return String(record?.['cid'])
}

describe('rhiza in a DHT', () => {
  it('fetches a file by its CID alone, from a node that nobody named', async () => {
    const content = Buffer.alloc(3_000_000, 'rhiza finds it ')
    const cid = await added('found.bin', content)
    await expect.poll(() => provided.map((one) => one.cid), { timeout: 30_000 }).toContain(cid)
    const got = await rhiza(['get', cid, ...enter, '-o', s.at('out.bin')], { repo: s.at('c') })
    expect(got.stderr).not.toContain('rhiza:')
    expect(got.code).toBe(0)
    expect((await readFile(s.at('out.bin'))).equals(content)).toBe(true)
    const providers = await rhizaJson(['routing', 'findprovs', cid, ...enter], { repo: s.at('c') })
    expect(providers).toEqual([{ peer: a.peerId, addrs: [a.addr.replace(/\/p2p\/.*/, '')] }])
  })

  it('needs no address at all where the repo has met peers before', async () => {
    const cid = await added('again.txt', 'asked without any option')
    await expect.poll(() => provided.map((one) => one.cid), { timeout: 30_000 }).toContain(cid)
    const d = await rhizaServe(s.at('d'), ['--dht', 'client', ...enter])
    await new Promise((resolve) => setTimeout(resolve, 2_500))
    await d.stop()
    const { code, stdout, stderr } = await rhiza(['cat', cid, ...prefix], { repo: s.at('d') })
    expect(stderr).toBe('')
    expect([code, stdout]).toEqual([0, 'asked without any option'])
  })

  it('says how to name peers where there is no way to find any', async () => {
    const cid = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'
    const got = await rhiza(['cat', cid, '--json'], { repo: s.at('nobody') })
    expect(got.code).toBe(1)
    expect(errorOf(got.stderr)).toMatchObject({ code: 'not-found' })
    expect(errorOf(got.stderr).message).toContain('--bootstrap')
    const provs = await rhiza(['routing', 'findprovs', cid, '--json'], { repo: s.at('nobody') })
    expect(errorOf(provs.stderr)).toMatchObject({ code: 'usage' })
  })

  it('says so when nobody has it', async () => {
    const cid = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'
    for (const args of [
      ['cat', cid],
      ['routing', 'findprovs', cid],
    ]) {
      const { code, stderr } = await rhiza([...args, ...enter, '--json'], { repo: s.at('c') })
      expect(code).toBe(1)
      expect(errorOf(stderr).code).toBe('not-found')
    }
  })

  it('finds a peer by its id', async () => {
    const [found] = await rhizaJson(['routing', 'findpeer', a.peerId, ...enter], { repo: s.at('c') })
    expect(found).toEqual({ peer: a.peerId, addrs: [a.addr.replace(/\/p2p\/.*/, '')] })
    const nobody = generateKey().publicKey.peerId.toString()
    const missing = await rhiza(['routing', 'findpeer', nobody, ...enter, '--json'], { repo: s.at('c') })
    expect(errorOf(missing.stderr).code).toBe('not-found')
  })

  it('has the running serve provide what was fetched', async () => {
    const cid = await added('handed.txt', 'handed on')
    await rhizaJson(['get', cid, '--peer', a.addr, '-o', s.at('handed')], { repo: s.at('b') })
    expect(await rhizaJson(['routing', 'provide', cid], { repo: s.at('b') })).toEqual([{ cid, peers: 1 }])
    const providers = await rhizaJson(['routing', 'findprovs', cid, ...enter], { repo: s.at('c') })
    expect(providers.map(({ peer }) => peer)).toContain(b.peerId)
    const idle = await rhiza(['routing', 'provide', cid, '--json', '--timeout', '500ms'], { repo: s.at('c') })
    expect(errorOf(idle.stderr).code).toBe('not-found')
  })

  it('publishes names, moves them, resolves them, and keeps the sequence over runs', async () => {
    const one = await added('one', 'one')
    const two = await added('two', 'two')
    const repo = s.at('names')
    const [key] = await rhizaJson(['key', 'gen', 'site'], { repo })
    const publish = async (cid: string): Promise<Record<string, unknown> | undefined> =>
      (await rhizaJson(['name', 'publish', cid, '--key', 'site', ...enter], { repo }))[0]
    expect(await publish(one)).toMatchObject({ name: key?.['id'], value: `/ipfs/${one}`, sequence: 0 })
    const resolve = async (): Promise<unknown> =>
      (await rhizaJson(['name', 'resolve', String(key?.['id']), ...enter], { repo: s.at('c') }))[0]?.['path']
    expect(await resolve()).toBe(`/ipfs/${one}`)
    expect(await publish(two)).toMatchObject({ sequence: 1 })
    expect(await resolve()).toBe(`/ipfs/${two}`)
    const raw = await rhiza(['routing', 'get', `/ipns/${String(key?.['id'])}`, ...enter], { repo: s.at('c') })
    await writeFile(s.at('record'), raw.bytes)
    const put = await rhizaJson(['routing', 'put', `/ipns/${String(key?.['id'])}`, s.at('record'), ...enter], {
      repo: s.at('c'),
    })
    expect(put[0]).toMatchObject({ peers: 2 })
    await writeFile(s.at('record'), 'nonsense')
    const bad = await rhiza(['routing', 'put', `/ipns/${String(key?.['id'])}`, s.at('record'), ...enter, '--json'], {
      repo: s.at('c'),
    })
    expect(bad.code).toBe(1)
  })

  it('shows the path of a lookup as it goes, and the table', async () => {
    const lines = await rhizaJson(['dht', 'query', a.peerId, ...enter], { repo: s.at('c') })
    const events = lines.map(({ event }) => event)
    expect(events[0]).toBe('query')
    expect(events.filter((event) => event === 'answer')).toHaveLength(2)
    expect(events.filter((event) => event === 'done')).toHaveLength(1)
    expect(lines.filter(({ event }) => event === 'closest').map(({ peer }) => peer)).toEqual([a.peerId, b.peerId])
    // B named A, unless A is in the table by now.
    const asked = lines.find(({ event, peer }) => event === 'query' && peer === a.peerId)
    expect([
      { from: b.peerId, hops: 1 },
      { from: null, hops: 0 },
    ]).toContainEqual({ from: asked?.['from'], hops: asked?.['hops'] })
    const plain = await rhiza(['dht', 'query', a.peerId, ...enter], { repo: s.at('c') })
    expect(plain.stdout).toBe(`${a.peerId}\n${b.peerId}\n`)
    expect(plain.stderr).toMatch(/ask .*\n.*answer /)
    const [stats] = await rhizaJson(['dht', 'stats', ...enter], { repo: s.at('c') })
    expect(stats).toMatchObject({ protocol: '/rhiza-test/kad/1.0.0', peers: 2 })
  })

  it('ends soon after an interrupt', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    const called = new Promise<void>((resolve) =>
      server.once('connection', (socket) => {
        // It hangs up.
        socket.on('error', () => {})
        resolve()
      }),
    )
    const { port } = server.address() as AddressInfo
    const running = rhizaStart(['dht', 'stats', '--bootstrap', `/ip4/127.0.0.1/tcp/${port}`, '--json'], {
      repo: s.at('c'),
    })
    // It runs, and waits for somebody who says nothing.
    await called
    running.kill('SIGINT')
    const { code, stderr } = await running.ended
    expect(code).toBe(1)
    expect(errorOf(stderr).code).toBe('interrupted')
  })

  it.each([
    [['routing']],
    [['routing', 'fly']],
    [['routing', 'findprovs']],
    [['routing', 'findprovs', 'nonsense', '--mdns']],
    [['routing', 'findpeer', 'nonsense', '--mdns']],
    [['routing', 'get', '/else/x', '--mdns']],
    [['name', 'publish', 'nonsense', '--mdns']],
    [['dht', 'query', 'nonsense', '--mdns']],
    [['dht', 'stats', '--dht-network', 'moon', '--mdns']],
    [['dht', 'stats', '--dht-prefix', 'moon', '--mdns']],
    [['dht', 'stats', '--bootstrap', 'moon']],
    [['serve', '--dht', 'moon']],
    [['key', 'gen', '../x']],
    [['key', 'gen', 'self']],
    [['key', 'gen', 'x', '--type', 'dsa']],
    [['key', 'gen', 'x', '--size', '4096']],
  ])('answers %j with one line and exit code 1', async (args) => {
    const { code, stdout, stderr } = await rhiza([...args, '--json'], { repo: s.at('usage') })
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(errorOf(stderr).code).toBe('usage')
  })
})

describe('rhiza key', () => {
  it('makes, lists, exports, imports and removes keys', async () => {
    const repo = s.at('keys')
    const [made] = await rhizaJson(['key', 'gen', 'one', '--type', 'secp256k1'], { repo })
    expect(made).toMatchObject({ name: 'one', type: 'Secp256k1' })
    const listed = await rhizaJson(['key', 'list'], { repo })
    expect(listed.map(({ name }) => name)).toEqual(['self', 'one'])
    await rhizaJson(['key', 'export', 'one', '-o', s.at('one.key')], { repo })
    expect((await stat(s.at('one.key'))).mode & 0o777).toBe(0o600)
    const again = await rhiza(['key', 'export', 'one', '-o', s.at('one.key'), '--json'], { repo })
    expect(errorOf(again.stderr).code).toBe('usage')
    const [imported] = await rhizaJson(['key', 'import', 'two', s.at('one.key')], { repo })
    expect(imported?.['id']).toBe(made?.['id'])
    const [other] = await rhizaJson(['key', 'import', 'three', '-'], { repo, input: await readFile(s.at('one.key')) })
    expect(other?.['id']).toBe(made?.['id'])
    const twice = await rhiza(['key', 'gen', 'one', '--json'], { repo })
    expect(errorOf(twice.stderr).code).toBe('exists')
    const bad = await rhiza(['key', 'import', 'bad', '-', '--json'], { repo, input: Buffer.from('no key') })
    expect(errorOf(bad.stderr).code).toBe('bad-key')
    await rhizaJson(['key', 'rm', 'one', 'two'], { repo })
    const missing = await rhiza(['key', 'rm', 'one', '--json'], { repo })
    expect(errorOf(missing.stderr).code).toBe('not-found')
    expect((await rhizaJson(['key', 'list'], { repo })).map(({ name }) => name)).toEqual(['self', 'three'])
  })

  it('explains every command of each group', async () => {
    for (const [group, names] of [
      ['routing', ['findprovs', 'findpeer', 'provide', 'get', 'put']],
      ['name', ['publish', 'resolve']],
      ['key', ['gen', 'list', 'rm', 'import', 'export']],
      ['dht', ['stats', 'query']],
    ] as const) {
      const all = await rhiza([group, '--help'])
      expect(all.code).toBe(0)
      for (const name of names) {
        expect(all.stdout).toContain(`rhiza ${group} ${name}`)
        const one = await rhiza([group, name, '--help'])
        expect(one.code).toBe(0)
        expect(one.stdout).toMatch(new RegExp(`^rhiza ${group} ${name}`))
      }
    }
  })
})
