/* The package as its users get it: built, packed, put into node_modules beside its declared dependencies, imported. */
import { execFile, execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build, type Metafile } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { version } from '../src/version.ts'

interface Manifest {
  name: string
  version: string
  exports: Record<string, string>
  bin: Record<string, string>
  dependencies: Record<string, string>
}

const root = resolve(import.meta.dirname, '..')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest
const subpaths = Object.keys(manifest.exports).filter((path) => path !== './package.json')
/** What touches sockets and disks when it is used; everything else must bundle for browsers. */
const forNodeOnly = new Set([
  './tls',
  './tcp',
  './dns/system',
  './stream-node',
  './discovery/mdns',
  './unixfs/disk',
  './store/disk',
  './records/sqlite',
  './repo',
  './identity',
])
const portable = subpaths.filter((path) => !forNodeOnly.has(path))
/** The build runs on the pinned Node, whichever one the tests run on. */
const pinned = join(root, 'node_modules', '.bin', 'node')
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')

const specifier = (subpath: string): string => manifest.name + subpath.slice(1)

/** Touches everything in `paths`. */
function imports(paths: readonly string[]): string {
  return paths
    .map((path, i) => `import * as m${i} from '${specifier(path)}'\nexport const n${i} = Object.keys(m${i})\n`)
    .join('')
}

const usage = `
    import { createNode, type Node, type Stream } from 'rhiza'
    export async function run(): Promise<string[]> {
      const node: Node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
      node.handle('/echo/1', async (stream: Stream) => { await stream.write(new Uint8Array(1)) })
      await node.start()
      const addrs = node.addrs().map((addr) => addr.toString())
      await node.stop()
      return addrs
    }`

let work: string
/** A project that has the package in its node_modules. */
let consumer: string

interface Ran {
  code: number | string | null
  stdout: string
  stderr: string
}

function node(args: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv; exec?: string } = {}): Promise<Ran> {
  const env = { ...process.env, ...options.env }
  // What vitest sets for its own children would show up as warnings.
  delete env['NODE_OPTIONS']
  return new Promise((done) => {
    execFile(
      options.exec ?? process.execPath,
      args,
      { cwd: options.cwd ?? consumer, env, encoding: 'utf8', timeout: 60_000 },
      (error, stdout, stderr) =>
        done({ code: error === null ? 0 : (error.code ?? error.signal ?? null), stdout, stderr }),
    )
  })
}

/** Runs `tsc` in the consumer's project: what it complains about, '' when it is content. */
async function typeCheck(file: string, source: string, options: Record<string, unknown>): Promise<string> {
  const project = mkdtempSync(join(consumer, 'types-'))
  writeFileSync(join(project, file), source)
  const compilerOptions = {
    target: 'es2023',
    lib: ['es2024', 'dom'],
    strict: true,
    skipLibCheck: false,
    noEmit: true,
    exactOptionalPropertyTypes: true,
    verbatimModuleSyntax: true,
    ...options,
  }
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: [file] }))
  const { code, stdout, stderr } = await node([tsc, '-p', project])
  return code === 0 ? '' : stdout + stderr
}

/** A browser bundle of the consumer's code; rejects when something does not resolve. */
async function bundle(contents: string): Promise<{ metafile: Metafile; warnings: unknown[] }> {
  return build({
    stdin: { contents, resolveDir: consumer },
    bundle: true,
    write: false,
    metafile: true,
    platform: 'browser',
    format: 'esm',
    logLevel: 'silent',
  })
}

/** What a page loads before it does anything: which modules, and all of their bytes, minified. */
async function loadedAtOnce(contents: string): Promise<{ held: string[]; code: Buffer }> {
  const { metafile, outputFiles } = await build({
    stdin: { contents, resolveDir: consumer },
    bundle: true,
    splitting: true,
    outdir: consumer,
    write: false,
    metafile: true,
    minify: true,
    platform: 'browser',
    format: 'esm',
    target: 'es2023',
    logLevel: 'silent',
  })
  const outputs = new Map(Object.entries(metafile.outputs).map(([path, output]) => [basename(path), output]))
  const loaded = new Set(['stdin.js'])
  for (const name of loaded) {
    for (const { path, kind } of outputs.get(name)?.imports ?? []) {
      if (kind === 'import-statement') loaded.add(basename(path))
    }
  }
  const held = [...loaded].flatMap((name) =>
    Object.entries(outputs.get(name)?.inputs ?? {}).flatMap(([path, { bytesInOutput }]) =>
      bytesInOutput > 0 ? [path.replace(/.*(node_modules|dist)\//, '')] : [],
    ),
  )
  const code = outputFiles.filter(({ path }) => loaded.has(basename(path))).map((file) => file.contents)
  return { held, code: Buffer.concat(code) }
}

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), 'rhiza-package-'))
  // A copy, so that a dist that is in use elsewhere stays as it is.
  const source = join(work, 'source')
  mkdirSync(source)
  for (const name of [
    'package.json',
    'tsconfig.json',
    'tsconfig.build.json',
    'src',
    'scripts',
    'LICENSE-APACHE',
    'LICENSE-MIT',
    'README.md',
  ])
    if (existsSync(join(root, name))) cpSync(join(root, name), join(source, name), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(source, 'node_modules'))
  const built = await node([tsc, '-p', 'tsconfig.build.json'], { cwd: source, exec: pinned })
  expect(built.stdout + built.stderr).toBe('')
  const mapped = await node(['scripts/dist-package.ts'], { cwd: source, exec: pinned })
  expect(mapped.stderr).toBe('')
  execFileSync('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', work], {
    cwd: source,
    stdio: 'pipe',
  })

  consumer = join(work, 'consumer')
  const modules = join(consumer, 'node_modules')
  const installed = join(modules, manifest.name)
  mkdirSync(installed, { recursive: true })
  execFileSync('tar', [
    '-xzf',
    join(work, `${manifest.name}-${manifest.version}.tgz`),
    '-C',
    installed,
    '--strip-components=1',
  ])
  // Only what is declared, and what that declares: an import of anything else fails here as it would at a user's.
  const dependencies = new Set([...Object.keys(manifest.dependencies), '@types/node'])
  for (const dependency of dependencies) {
    const from = join(root, 'node_modules', dependency)
    mkdirSync(dirname(join(modules, dependency)), { recursive: true })
    cpSync(from, join(modules, dependency), { recursive: true })
    const declared = JSON.parse(readFileSync(join(from, 'package.json'), 'utf8')) as Partial<Manifest>
    for (const name of Object.keys(declared.dependencies ?? {})) dependencies.add(name)
  }
  writeFileSync(join(consumer, 'package.json'), '{"type":"module","private":true}')
}, 120_000)

afterAll(() => rmSync(work, { recursive: true, force: true }))

describe('the packed package', { timeout: 120_000 }, () => {
  it('holds the built files, the licences and nothing else', () => {
    const installed = join(consumer, 'node_modules', manifest.name)
    const expected = ['LICENSE-APACHE', 'LICENSE-MIT', 'dist', 'package.json']
    const names = readdirSync(installed).filter((name) => name !== 'README.md')
    expect(names.toSorted()).toEqual(expected)
    for (const target of [...Object.values(manifest.exports), ...Object.values(manifest.bin)])
      expect(existsSync(join(installed, target)), target).toBe(true)
    for (const name of readdirSync(installed, { recursive: true, encoding: 'utf8' }))
      expect(name).not.toMatch(/(^|[^d])\.ts$|\.test\./)
  })

  it('says its own version', () => {
    expect(version).toBe(manifest.version)
  })

  it('has a command that runs', async () => {
    const main = join(consumer, 'node_modules', manifest.name, manifest.bin['rhiza'] ?? '')
    const help = await node([main, '--help'])
    expect(help).toMatchObject({ code: 0, stderr: '' })
    expect(help.stdout).toContain('rhiza')
  })

  // The permission model denies every write, child process and worker; nothing may be left that keeps the process alive.
  // Node 22's loader is still closing the files it read when the import is done.
  const probe = `
    .then(() => new Promise((resolve) => setTimeout(resolve, 20)))
    .then(() => {
      const left = process.getActiveResourcesInfo()
      if (left.length > 0) throw new Error('left open: ' + left)
    })`
  const permissions = ['--permission', '--allow-fs-read=*', '--trace-warnings']

  describe.each(subpaths)('%s', (subpath) => {
    it('is imported alone without a warning, a socket, a write or a timer', async () => {
      const code = `import(${JSON.stringify(specifier(subpath))})${probe}`
      expect(await node([...permissions, '--input-type=module', '--eval', code])).toEqual({
        code: 0,
        stdout: '',
        stderr: '',
      })
    })

    it('is required alone just as well', async () => {
      const code = `Promise.resolve(require(${JSON.stringify(specifier(subpath))}))${probe}`
      expect(await node([...permissions, '--input-type=commonjs', '--eval', code])).toEqual({
        code: 0,
        stdout: '',
        stderr: '',
      })
    })
  })

  it('gives every subpath the same modules: errors and ids of one are those of all', async () => {
    const code = `
      import * as all from 'rhiza'
      import { LimitError } from 'rhiza/errors'
      import { PeerId } from 'rhiza/peer'
      if (all.LimitError !== LimitError || all.PeerId !== PeerId) throw new Error('two copies')`
    expect(await node(['--input-type=module', '--eval', code])).toEqual({ code: 0, stdout: '', stderr: '' })
  })

  it('bundles for browsers without reaching a module of Node', async () => {
    const contents = portable
      .map((path, i) => `import * as m${i} from ${JSON.stringify(specifier(path))}; console.log(m${i})`)
      .join('\n')
    const { metafile, warnings } = await bundle(contents)
    expect(warnings).toEqual([])
    const reached = Object.values(metafile.inputs).flatMap((input) => input.imports)
    expect(reached.length).toBeGreaterThan(10)
    expect(reached.filter(({ path, external }) => external === true || path.startsWith('node:'))).toEqual([])
  })

  it('leaves out of a bundle what is not used', async () => {
    const { metafile } = await bundle(`export { Multiaddr } from 'rhiza'`)
    const [output] = Object.values(metafile.outputs)
    const kept = Object.entries(output?.inputs ?? {}).filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    expect(
      kept.map(([path]) => path).filter((path) => /\/(bitswap|gossipsub|unixfs|yamux|noise)\//.test(path)),
    ).toEqual([])
  })

  it('loads on a page what it takes to dial, in 55 kB, and the rest when it is used', async () => {
    const { held, code } = await loadedAtOnce(`export { createNode } from 'rhiza/node'`)
    expect(held).toEqual(expect.arrayContaining(['security/noise/noise.js', 'transport/websocket/browser.js']))
    const later =
      /^(@noble\/(curves|hashes)|multiformats|@ipld|ws|ipld|dht|unixfs|protocols\/(bitswap|gossipsub))\/|^dial\/(search|resolve|doh)\.js$/
    expect(held.filter((path) => later.test(path))).toEqual([])
    expect(gzipSync(code, { level: 9 }).length).toBeLessThan(55_000)
  })

  it('loads topics, GraphSync and the DHT only for a kit that is asked for them', async () => {
    const { held } = await loadedAtOnce(`export { createKit } from 'rhiza/kit'`)
    expect(held).toEqual(expect.arrayContaining(['protocols/bitswap/bitswap.js', 'kit/kit.js']))
    const later = /^(dht|ipns|discovery|protocols\/(gossipsub|graphsync|fetch))\/|^kit\/pubsub(-content)?\.js$/
    expect(held.filter((path) => later.test(path))).toEqual([])
  })

  it('has types for a Node project', async () => {
    const options = { module: 'nodenext', moduleResolution: 'nodenext', types: ['node'] }
    expect(await typeCheck('main.ts', imports(subpaths) + usage, options)).toBe('')
  })

  it('has types for a bundler, without those of Node', async () => {
    const options = { module: 'esnext', moduleResolution: 'bundler', types: [] }
    expect(await typeCheck('main.ts', imports(portable) + usage, options)).toBe('')
  })

  it('has types for a CommonJS file', async () => {
    const source = `import rhiza = require('rhiza')\nconst made: Promise<rhiza.Node> = rhiza.createNode()\nvoid made\n`
    const options = { module: 'nodenext', moduleResolution: 'nodenext', types: ['node'] }
    expect(await typeCheck('main.cts', source, options)).toBe('')
  })
})
