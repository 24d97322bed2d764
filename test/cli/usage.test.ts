import { spawn } from 'node:child_process'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { UsageError, commandFirst, multiaddrOf, parse, repoPathOf } from '../../src/cli/args.ts'
import { add } from '../../src/cli/commands/add.ts'
import { cat } from '../../src/cli/commands/cat.ts'
import { extentOf } from '../../src/cli/files.ts'
import { rhiza, rhizaJson, scratch, type Scratch } from './rhiza.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const main = join(import.meta.dirname, '../../src/cli/main.ts')
let s: Scratch
let repo: string

beforeAll(async () => {
  s = await scratch()
  repo = s.at('repo')
})
afterAll(() => s.remove())
afterEach(() => {
  vi.unstubAllEnvs()
})

describe('what a user mistypes', () => {
  it('names the commands there are', async () => {
    for (const args of [['sever'], ['help', 'sever']]) {
      const { code, stderr } = await rhiza(args)
      expect(code).toBe(1)
      expect(stderr).toMatch(/^rhiza: there is no command "sever": want id, add, .*serve.*\n$/)
    }
  })

  it('gets a list of commands that fits', async () => {
    const { stdout } = await rhiza(['--help'])
    expect(stdout).toContain('  ls CID[/PATH]  ')
    expect(stdout).toMatch(/^ {2}serve .*\n +run a node that serves/m)
    expect(stdout.split('\n').filter((line) => line.length > 130)).toEqual([])
  })

  it('takes options that hold everywhere before the command, too', async () => {
    expect(commandFirst(['--repo', 'r', '--json', 'add', '-r', 'x'])).toEqual([
      'add',
      '--repo',
      'r',
      '--json',
      '-r',
      'x',
    ])
    expect(commandFirst(['--repo=r', 'id'])).toEqual(['id', '--repo=r'])
    expect(commandFirst(['add', '--repo', 'r'])).toEqual(['add', '--repo', 'r'])
    expect(commandFirst([])).toEqual([])
    const { code, stdout } = await rhiza(['--json', '--repo', repo, 'id'])
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ repo })
  })

  it('explains an option in one line', () => {
    expect(() => parse(add, ['-dash.txt'])).toThrow(/begin with a dash goes --.*; see rhiza add --help$/)
    expect(() => parse(add, ['--nix'])).toThrow(/^Unknown option '--nix'; see/)
    expect(() => parse(cat, ['--length', '-1'])).toThrow(/^Option '--length' argument is ambiguous; see/)
  })

  it('wants addresses, not peer ids or host names', async () => {
    expect(multiaddrOf('ADDR', '/ip4/127.0.0.1/tcp/1')).toBe('/ip4/127.0.0.1/tcp/1')
    expect(() => multiaddrOf('ADDR', 'localhost:4001')).toThrow(UsageError)
    for (const args of [
      ['ping', 'localhost'],
      ['cat', 'bafkqaaa', '--peer', '12D3KooWPC213sSVGZTuxjSXyp578xjmFMrMigLN27r4ucmetTCT'],
    ]) {
      const { code, stderr } = await rhiza(args, { repo })
      expect([code, stderr]).toEqual([1, expect.stringContaining('want an address as /ip4/')])
    }
  })

  it.each([
    [['serve', '--listen', '4001'], 'want an address as /ip4/'],
    [['serve', '--listen', '/ip4/127.0.0.1/tcp/0/tls/ws'], 'wants a certificate: give --tls-cert and --tls-key'],
    [['serve', '--tls-cert', 'cert.pem'], '--tls-cert and --tls-key go together'],
    [['serve', '--listen', '/ip4/127.0.0.1/udp/0/quic-v1'], 'no transport can listen on'],
    [['ping', '/ip4/127.0.0.1'], '; want an address as /ip4/127.0.0.1/tcp/4001'],
    [['cat', 'bafyaabakaieac'], 'is a directory; rhiza ls lists a directory'],
    [['ls', 'bafkqaaa'], 'is a file; rhiza cat writes a file'],
  ])('tells the next step after %j', async (args, message) => {
    const { code, stderr } = await rhiza(args, { repo })
    expect([code, stderr]).toEqual([1, expect.stringContaining(message)])
    expect(stderr.split('\n')).toHaveLength(2)
  })

  it.each(['', '0x2', '1k', '1.5', '9007199254740993'])('does not take %j for a number of bytes', async (length) => {
    const { code, stderr } = await rhiza(['cat', 'bafkqaaa', `--length=${length}`], { repo })
    expect([code, stderr]).toEqual([1, expect.stringContaining('want a whole number of bytes')])
  })

  it('does not write a file named - for who wants standard output', async () => {
    const { code, stderr } = await rhiza(['get', 'bafkqaaa', '-o', '-'], { repo, cwd: s.dir })
    expect([code, stderr]).toEqual([1, expect.stringContaining('rhiza cat')])
  })

  it('takes an empty RHIZA_PATH for none, and refuses an empty --repo', () => {
    vi.stubEnv('RHIZA_PATH', '')
    expect(repoPathOf({})).toBe(join(homedir(), '.rhiza'))
    expect(() => repoPathOf({ repo: '' })).toThrow(UsageError)
  })

  it('says where content can be named from', async () => {
    const far = await rhiza(['cat', 'https://example.org/ipfs/bafkqaaa'], { repo })
    expect(far.stderr).toContain('want CID/PATH')
    const named = await rhiza(['cat', '/ipns/example.org'], { repo })
    expect(named.stderr).toContain('want CID/PATH')
    const cid = 'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq'
    const alone = await rhiza(['cat', cid], { repo })
    expect(alone.stderr).toContain('--peer MULTIADDR')
    const cut = await rhiza(['cat', cid.slice(0, -1)], { repo })
    expect(cut.stderr).toContain('characters are wrong or missing')
    const short = await rhiza(['cat', 'Qm123'], { repo })
    expect(short.stderr).toContain('has 46 characters, this has 5')
  })
})

describe('rhiza add of a real folder', () => {
  it('wants -r before it reads anything', async () => {
    const path = s.at('untouched')
    const { code, stderr } = await rhiza(['add', s.dir], { repo: path })
    expect([code, stderr]).toEqual([1, expect.stringContaining('add -r')])
    await expect(readdir(path)).rejects.toThrow('ENOENT')
  })

  it('says how many names it left out', async () => {
    await mkdir(s.at('dots', '.git'), { recursive: true })
    await writeFile(s.at('dots', 'a'), 'aa')
    await writeFile(s.at('dots', '.env'), 'secret')
    await writeFile(s.at('dots', '.git', 'x'), 'not counted: its folder is')
    expect(await extentOf(s.at('dots'), false)).toEqual({ bytes: 2, leftOut: 2 })
    expect(await extentOf(s.at('dots'), true)).toMatchObject({ leftOut: 0 })
    const { stderr } = await rhiza(['add', '-r', s.at('dots')], { repo })
    expect(stderr).toBe('left out 2 names that begin with a dot; --hidden adds them\n')
    const all = await rhiza(['add', '-r', '--hidden', s.at('dots')], { repo })
    expect(all.stderr).toBe('')
  })

  it.runIf(process.platform === 'linux')('names a file whose name is not UTF-8', async () => {
    await mkdir(s.at('bytes'))
    await writeFile(Buffer.concat([Buffer.from(`${s.at('bytes')}/caf`), Buffer.of(0xe9)]), 'x')
    const { code, stderr } = await rhiza(['add', '-r', s.at('bytes')], { repo })
    expect([code, stderr]).toEqual([1, expect.stringContaining('the name is not UTF-8')])
  })

  it('takes a name that holds a replacement character itself', async () => {
    await mkdir(s.at('really'))
    await writeFile(s.at('really', 'a\ufffd'), 'x')
    const added = await rhizaJson(['add', '-r', s.at('really')], { repo })
    expect(added[0]).toMatchObject({ name: 'really/a\ufffd' })
  })
})

describe('an interrupted command', () => {
  it('ends although nobody reads its output', async () => {
    await writeFile(s.at('big'), Buffer.alloc(4 << 20, 1))
    const [added] = await rhizaJson(['add', s.at('big')], { repo })
    const env = { ...process.env, RHIZA_PATH: repo, npm_lifecycle_event: '' }
    const child = spawn(process.execPath, [main, 'cat', String(added?.['cid'])], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve(code ?? signal)))
    const { stdout, stderr } = child
    // The first bytes have come, and it waits in a write.
    await new Promise((resolve) => stdout.once('readable', resolve))
    let said = ''
    stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    child.kill('SIGTERM')
    expect(await ended).toBe(1)
    stdout.destroy()
    expect(said).toBe('rhiza: interrupted\n')
  })
})
