import { chmod, mkdir, readFile, readdir, readlink, stat, symlink, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { printable } from '../../src/cli/output.ts'
import { parseDuration } from '../../src/cli/args.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { createKit } from '../../src/kit/kit.ts'
import { createNode } from '../../src/node.ts'
import { openRepo } from '../../src/store/repo.ts'
import { rhiza, rhizaJson, rhizaServe, rhizaStart, scratch, type Scratch, type Served } from './rhiza.ts'

// Every run is a process of its own: on a busy machine each takes its time.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let s: Scratch
let repo: string
let other: string

beforeAll(async () => {
  s = await scratch()
  repo = s.at('repo')
  other = s.at('other')
})
afterAll(() => s.remove())

function errorOf(stderr: string): { code: string; message: string } {
  const line = stderr.trim().split('\n').at(-1) ?? ''
  return (JSON.parse(line) as { error: { code: string; message: string } }).error
}

describe('rhiza', () => {
  it('explains itself and every command', async () => {
    const { code, stdout } = await rhiza(['--help'])
    expect(code).toBe(0)
    for (const name of ['id', 'add', 'cat', 'get', 'ls', 'serve', 'ping', 'perf']) {
      expect(stdout).toContain(`  ${name} `)
      const help = await rhiza([name, '--help'])
      expect(help.code).toBe(0)
      expect(help.stdout).toContain(`rhiza ${name}`)
      expect(help.stdout).toContain('--repo DIR')
    }
  })

  it.each([
    [['fly']],
    [['cat']],
    [['cat', 'a', 'b']],
    [['cat', 'not-a-cid']],
    [['cat', '--nonsense', 'x']],
    [['add', '--profile', 'x', '.']],
    [['ping', 'nonsense']],
    [['ping', '/ip4/127.0.0.1/tcp/1', '--timeout', 'soon']],
    [['perf', 'nonsense']],
    [['perf', '/ip4/127.0.0.1/tcp/1', '--bytes', 'many']],
    [['perf', '/ip4/127.0.0.1/tcp/1', '--bytes', '0']],
  ])('answers %j with one line and exit code 1', async (args) => {
    const { code, stdout, stderr } = await rhiza([...args, '--json'], { repo })
    expect(code).toBe(1)
    expect(stdout).toBe('')
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(errorOf(stderr).code).toBe('usage')
    const plain = await rhiza(args, { repo })
    expect(plain.stderr).toMatch(/^rhiza: .+\n$/)
  })

  it('keeps its peer id over runs, in a file for the owner alone', async () => {
    const [first] = await rhizaJson(['id'], { repo })
    const [second] = await rhizaJson(['id'], { repo })
    expect(first).toEqual(second)
    expect(String(first?.['peerId'])).toMatch(/^12D3KooW/)
    expect((await stat(s.at('repo', 'identity'))).mode & 0o777).toBe(0o600)
  })

  it('reports a corrupt identity and leaves it alone', async () => {
    const path = s.at('corrupt-repo')
    await rhiza(['id'], { repo: path })
    await writeFile(s.at('corrupt-repo', 'identity'), 'not a key')
    const { code, stderr } = await rhiza(['id', '--json'], { repo: path })
    expect(code).toBe(1)
    expect(errorOf(stderr).code).toBe('corrupt')
    expect(await readFile(s.at('corrupt-repo', 'identity'), 'utf8')).toBe('not a key')
  })

  it('adds and reads back: a file, standard input, a part, nothing', async () => {
    await writeFile(s.at('hello.txt'), 'hello world')
    const [added] = await rhizaJson(['add', s.at('hello.txt')], { repo })
    // IPIP-0499: raw leaf of `hello world` without newline.
    expect(added).toEqual({
      name: 'hello.txt',
      cid: 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e',
      size: 11,
    })
    const cid = String(added?.['cid'])
    expect((await rhiza(['cat', cid], { repo })).stdout).toBe('hello world')
    expect((await rhiza(['cat', cid, '--offset', '6', '--length', '3'], { repo })).stdout).toBe('wor')
    const [piped] = await rhizaJson(['add', '-'], { repo, input: Buffer.from('hello world') })
    expect(piped?.['cid']).toBe(cid)
    const quiet = await rhiza(['add', '-q', '--profile', 'unixfs-v0-2015', s.at('hello.txt')], { repo })
    expect(quiet.stdout).toBe('Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD\n')
    await writeFile(s.at('empty'), '')
    const [empty] = await rhizaJson(['add', s.at('empty')], { repo })
    expect((await rhiza(['cat', String(empty?.['cid'])], { repo })).stdout).toBe('')
  })

  it('adds a folder, lists it and writes it out again', async () => {
    const dir = s.at('tree')
    await mkdir(s.at('tree', 'sub', 'deep'), { recursive: true })
    await mkdir(s.at('tree', 'nothing'))
    await writeFile(s.at('tree', 'a.txt'), 'a')
    await writeFile(s.at('tree', 'sub', 'deep', 'big.bin'), Buffer.alloc(3_000_000, 7))
    await writeFile(s.at('tree', '.hidden'), 'no')
    await symlink('a.txt', s.at('tree', 'link'))
    expect(errorOf((await rhiza(['add', dir, '--json'], { repo })).stderr).message).toContain('add -r')
    const added = await rhizaJson(['add', '-r', dir], { repo })
    const root = added.at(-1)
    expect(root).toMatchObject({ name: 'tree', size: 3_000_001 })
    expect(added.map((a) => a['name'])).toContain('tree/sub/deep/big.bin')
    expect(added.map((a) => a['name'])).not.toContain('tree/.hidden')
    const cid = String(root?.['cid'])
    const listed = await rhizaJson(['ls', cid], { repo })
    expect(listed.map((l) => [l['name'], l['type']])).toEqual([
      ['a.txt', 'file'],
      ['link', 'symlink'],
      ['nothing', 'directory'],
      ['sub', 'directory'],
    ])
    const got = await rhiza(['get', cid, '-o', s.at('out')], { repo })
    expect(got.code).toBe(0)
    expect(await readFile(s.at('out', 'sub', 'deep', 'big.bin'))).toEqual(Buffer.alloc(3_000_000, 7))
    expect(await readlink(s.at('out', 'link'))).toBe('a.txt')
    expect(await readdir(s.at('out', 'nothing'))).toEqual([])
    expect((await rhiza(['cat', `${cid}/sub/deep/big.bin`, '--length', '2'], { repo })).bytes).toEqual(
      Buffer.from([7, 7]),
    )
    const missing = await rhiza(['cat', `/ipfs/${cid}/sub/none`, '--json'], { repo })
    expect(errorOf(missing.stderr)).toMatchObject({ code: 'not-found' })
  })

  it('names the file that is not there', async () => {
    const { code, stderr } = await rhiza(['add', s.at('no-such-file'), '--json'], { repo })
    expect(code).toBe(1)
    expect(errorOf(stderr)).toMatchObject({ code: 'not-found' })
    expect(errorOf(stderr).message).toContain('no-such-file')
  })

  it('says where a block could come from when nobody was asked', async () => {
    const { code, stderr } = await rhiza(
      ['cat', 'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq', '--json'],
      { repo: s.at('void') },
    )
    expect(code).toBe(1)
    expect(errorOf(stderr)).toMatchObject({ code: 'not-found' })
  })

  it('makes names from elsewhere harmless', () => {
    expect(printable('a\u001b[31mb\nc\u202e')).toBe('a\\x1b[31mb\\nc\\u202e')
    expect(printable('grün 日本')).toBe('grün 日本')
  })

  it('reads times with their unit', () => {
    expect(['500ms', '30s', '2m', '1h', '1.5'].map(parseDuration)).toEqual([500, 30_000, 120_000, 3_600_000, 1_500])
    for (const bad of ['', '0s', '-1s', '1 s', 'x']) expect(() => parseDuration(bad)).toThrow()
  })
})

describe('rhiza serve', () => {
  let served: Served
  beforeAll(async () => {
    served = await rhizaServe(repo)
  })
  afterAll(() => served.stop())

  it('says where it listens and answers a ping', async () => {
    expect(served.addr).toBe(`/ip4/127.0.0.1/tcp/${served.addr.split('/')[4]}/p2p/${served.peerId}`)
    const lines = await rhizaJson(['ping', served.addr, '-n', '3', '-i', '1ms'])
    expect(lines).toHaveLength(4)
    expect(lines.at(-1)).toMatchObject({ count: 3 })
  })

  it('serves what is added while it runs, to a second repo', async () => {
    await writeFile(s.at('late.bin'), Buffer.alloc(5_000_000, 3))
    const [added] = await rhizaJson(['add', s.at('late.bin')], { repo })
    const cid = String(added?.['cid'])
    const got = await rhizaJson(['get', cid, '--peer', served.addr, '-o', s.at('late.out')], { repo: other })
    expect(got[0]).toMatchObject({ cid, size: 5_000_000 })
    expect(await readFile(s.at('late.out'))).toEqual(Buffer.alloc(5_000_000, 3))
    // What was fetched stays: no peer is needed the second time.
    expect((await rhiza(['cat', cid], { repo: other })).bytes).toHaveLength(5_000_000)
  })

  it('remembers in its repo where its peers are, and says nothing of SQLite', async () => {
    const path = s.at('remembers')
    const remembers = await rhizaServe(path)
    let err = ''
    remembers.child.stderr?.on('data', (chunk: Buffer) => (err += chunk.toString()))
    const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    await node.start()
    const beside = await openRepo(path)
    const records = await beside.records()
    const keys = async (): Promise<string[]> =>
      (await Array.fromAsync(records.entries('/peers/'))).map(({ key }) => key).toSorted()
    try {
      await node.dial(remembers.addr)
      const both = [String(node.peerId), remembers.peerId].map((id) => `/peers/${id}/addrs`)
      await expect.poll(keys, { timeout: 20_000 }).toEqual(both.toSorted())
      expect(await remembers.stop()).toBe(0)
      expect(await keys()).toHaveLength(2)
    } finally {
      await node.stop()
      await beside.close()
    }
    expect(err).not.toMatch(/sqlite/i)
  })

  it('names a damaged block, fetches it again and repairs it', async () => {
    await writeFile(s.at('rot.txt'), 'this will rot\n')
    const [added] = await rhizaJson(['add', s.at('rot.txt')], { repo })
    const cid = String(added?.['cid'])
    const path = s.at('rotten')
    await rhizaJson(['add', s.at('rot.txt')], { repo: path })
    const file = (await readdir(s.at('rotten', 'blocks'), { recursive: true })).find((f) => f.endsWith('.data'))
    const block = s.at('rotten', 'blocks', file ?? '')
    await writeFile(block, 'that did rot\n')
    const { stdout, stderr } = await rhiza(['cat', cid, '--peer', served.addr], { repo: path })
    expect(stdout).toBe('this will rot\n')
    expect(stderr).toContain(`block ${cid} in the repo is damaged`)
    expect(await readFile(block, 'utf8')).toBe('this will rot\n')
  })

  it('says within the timeout that the peer does not have it', async () => {
    const cid = 'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yea'
    const { code, stderr } = await rhiza(
      [
        'cat',
        'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq',
        '--peer',
        served.addr,
        '--timeout',
        '5s',
        '--json',
      ],
      { repo: other },
    )
    expect(code, cid).toBe(1)
    expect(errorOf(stderr).code).toBe('not-found')
  })

  it('names why no peer could be reached: closed port, wrong peer id', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    await new Promise((resolve) => server.close(resolve))
    const cid = 'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq'
    const closed = await rhiza(['cat', cid, '--peer', `/ip4/127.0.0.1/tcp/${port}`, '--json'], { repo: other })
    expect(errorOf(closed.stderr).code).toBe('unreachable')
    const [self] = await rhizaJson(['id'], { repo: other })
    const wrong = served.addr.replace(served.peerId, String(self?.['peerId']))
    const impostor = await rhiza(['cat', cid, '--peer', wrong, '--json'], { repo: s.at('third') })
    expect(errorOf(impostor.stderr).code).toBe('wrong-peer')
  })

  it.each(['SIGINT', 'SIGTERM'] as const)('ends with code 0 within 2 s of %s', async (signal) => {
    const one = await rhizaServe(s.at(`repo-${signal}`))
    const before = Date.now()
    expect(await one.stop(signal)).toBe(0)
    expect(Date.now() - before).toBeLessThan(2_000)
  })

  it('listens on all interfaces by default, on 4001 or the next free port', async () => {
    const one = await rhizaServe(s.at('repo-default'), [], [])
    const ports = one.addrs.map((addr) => Number(addr.split('/')[4]))
    expect(Math.min(...ports)).toBeGreaterThanOrEqual(4001)
    expect(one.addrs.some((addr) => addr.startsWith('/ip4/127.0.0.1/tcp/'))).toBe(true)
    const two = await rhizaServe(s.at('repo-default-2'), [], [])
    expect(two.addrs).not.toContain(one.addrs[0]?.replace(one.peerId, two.peerId))
    expect([await one.stop(), await two.stop()]).toEqual([0, 0])
  })

  it('one-shot commands come with a peer id of their own, not the daemon’s', async () => {
    const kit = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    const seen: string[] = []
    kit.node.on('peer:connect', (peer) => seen.push(peer.toString()))
    await kit.start()
    const { cid } = await kit.add('asked for from beside a daemon')
    const { stdout } = await rhiza(['cat', cid.toString(), '--peer', String(kit.node.addrs()[0])], { repo })
    await kit.stop()
    expect(stdout).toBe('asked for from beside a daemon')
    expect(seen).toHaveLength(1)
    expect(seen).not.toContain(served.peerId)
  })

  it('gives up at --timeout on a peer that says nothing', async () => {
    const server = createServer((socket) => void socket.on('error', () => {}))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const cid = 'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq'
    const args = ['cat', cid, '--peer', `/ip4/127.0.0.1/tcp/${port}`, '--timeout', '300ms', '--json']
    const { code, stderr } = await rhiza(args, { repo: other })
    server.close()
    expect([code, errorOf(stderr).code]).toEqual([1, 'timeout'])
  })

  it('is interrupted with one line, and cleans up', async () => {
    // A peer that connects and never has the second block.
    const kit = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    await kit.start()
    const content = new Uint8Array(3 << 20).map((_, i) => (i * 7) >> 3)
    const { cid } = await kit.add(content)
    const last = cidOf(0x55, content.subarray(2 << 20))
    await kit.blocks.delete(last)
    kit.node.unhandle(['/ipfs/bitswap/1.2.0'])
    const folder = s.at('interrupted')
    await mkdir(folder)
    const args = [
      'get',
      cid.toString(),
      '--peer',
      String(kit.node.addrs()[0]),
      '-o',
      s.at('interrupted', 'out'),
      '--json',
    ]
    const running = rhizaStart(args, { repo: s.at('interrupted-repo') })
    // On 1.1 nobody says that the last block is missing: it waits until it is interrupted.
    await expect.poll(() => readdir(folder), { timeout: 20_000 }).not.toEqual([])
    running.kill('SIGINT')
    const { code, stderr } = await running.ended
    await kit.stop()
    expect([code, errorOf(stderr).code]).toEqual([1, 'interrupted'])
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(await readdir(folder)).toEqual([])
  })

  it('refuses a listen address that is taken or makes no sense', async () => {
    const port = served.addr.split('/')[4] ?? ''
    const taken = await rhiza(['serve', '--listen', `/ip4/127.0.0.1/tcp/${port}`, '--json'], { repo: other })
    expect([taken.code, errorOf(taken.stderr).code]).toEqual([1, 'refused'])
    const wrong = await rhiza(['serve', '--listen', '/ip4/999/tcp/1', '--json'], { repo: other })
    expect([wrong.code, errorOf(wrong.stderr).code]).toEqual([1, 'usage'])
  })

  it.skipIf(process.getuid?.() === 0)('reports a repo that it may not write', async () => {
    const path = s.at('read-only')
    await mkdir(path)
    await chmod(path, 0o500)
    const { code, stderr } = await rhiza(['add', s.at('hello.txt'), '--json'], { repo: path })
    expect([code, errorOf(stderr).code]).toEqual([1, 'not-permitted'])
  })
})
