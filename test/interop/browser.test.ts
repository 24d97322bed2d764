/* A page in a real Chromium as a rhiza peer: the portable bundle, dialling over WebSocket. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { build } from 'esbuild'
import { chromium, type Browser, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { BufferedStream } from '../../src/stream.ts'
import { tcp } from '../../src/transport/tcp.ts'
import { websocket } from '../../src/transport/websocket/websocket.ts'
import { certificate } from '../certificate.ts'
import type { PagePeer } from './browser/page.ts'
import { available, buildPeers, seededBytes, startPeer, type Peer } from './peers.ts'

const root = join(import.meta.dirname, '../..')
const found = spawnSync('which', ['chromium'], { encoding: 'utf8' }).stdout.trim()
const executablePath = process.env['RHIZA_CHROMIUM'] ?? found
const flags =
  '--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync'
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

async function bundled(entry: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(root, entry)],
    alias: { rhiza: join(root, 'src/index.ts') },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2024',
    minify: true,
  })
  return outputFiles[0]?.text ?? ''
}

/** The files of a site on 127.0.0.1, which browsers hold to be as good as HTTPS. */
async function site(files: Readonly<Record<string, string>>): Promise<http.Server> {
  const server = http.createServer(({ url = '/' }, response) => {
    const name = url.replace(/\?.*/, '')
    const type = name.endsWith('.js') ? 'text/javascript' : 'text/html'
    response.writeHead(files[name] === undefined ? 404 : 200, { 'Content-Type': type }).end(files[name])
  })
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return server
}

await buildPeers()
const have = available()

describe.skipIf(executablePath === '')(
  `a page in Chromium${executablePath === '' ? ' (there is none on PATH: run scripts/system.sh)' : ''}`,
  () => {
    let server: http.Server
    let browser: Browser
    let page: Page
    let kit: Kit
    let origin: string
    const local = certificate(['localhost', '127.0.0.1'])
    const problems: string[] = []

    beforeAll(async () => {
      server = await site({
        '/': '<!doctype html><meta charset="utf-8"><title>peer</title><script type="module" src="/peer.js"></script>',
        '/peer.js': await bundled('test/interop/browser/page.ts'),
        '/example/index.html': readFileSync(join(root, 'examples/browser/index.html'), 'utf8'),
        '/example/page.js': await bundled('examples/browser/page.ts'),
      })
      origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      browser = await chromium.launch({ executablePath, args: flags.split(' ') })
      page = await browser.newPage({ ignoreHTTPSErrors: true })
      page.on('pageerror', (error) => problems.push(String(error)))
      await page.goto(origin)
      kit = await createKit({
        transports: [tcp(), websocket({ tls: local })],
        listen: ['/ip4/127.0.0.1/tcp/0/ws', '/ip4/127.0.0.1/tcp/0/tls/ws'],
      })
      kit.node.handle('/echo/1.0.0', async (stream) => {
        for await (const chunk of stream) await stream.write(chunk)
        await stream.closeWrite()
      })
      await kit.start()
    })
    afterAll(async () => {
      await browser?.close()
      await kit?.stop()
      server?.close()
    })

    const call = <K extends keyof PagePeer>(
      name: K,
      ...args: Parameters<PagePeer[K]>
    ): Promise<Awaited<ReturnType<PagePeer[K]>>> =>
      page.evaluate(
        ([name, args]) =>
          (globalThis as unknown as { peer: Record<string, (...a: unknown[]) => never> }).peer[name]?.(...args),
        [name as string, args as unknown[]] as const,
      ) as Promise<Awaited<ReturnType<PagePeer[K]>>>
    const at = (form: '/ws/' | '/tls/ws/'): string =>
      kit.node
        .addrs()
        .map(String)
        .find((addr) => addr.includes(form)) ?? ''

    it('dials a rhiza node over ws, identifies it, pings it and has its echo', async () => {
      const greeting = await call('greet', at('/ws/'))
      expect(greeting).toMatchObject({ transport: 'websocket', security: '/noise' })
      expect(greeting.agent).toMatch(/^rhiza\//)
      expect(greeting.rttMs).toHaveLength(5)
      expect(await call('echo', at('/ws/'), 1 << 20)).toBe(true)
    })

    it('fetches a file from it over Bitswap, block by block, and has the same bytes', async () => {
      const bytes = seededBytes(5_000_000, 3)
      const { cid } = await kit.add([bytes])
      expect(await call('fetch', at('/ws/'), String(cid))).toBe(sha256(bytes))
    })

    it('answers streams that the node opens, and gives it a file', async () => {
      const id = await call('id')
      const stream = await kit.node.newStream(id, '/page/1.0.0')
      const bytes = seededBytes(300_000, 4)
      await stream.write(bytes.slice())
      await stream.closeWrite()
      expect(Buffer.compare(await new BufferedStream(stream).readAll(bytes.length), bytes)).toBe(0)
      const added = await call('add', 3_000_000)
      const chunks = await Array.fromAsync(kit.cat(added.cid, { peers: [id] }))
      expect(sha256(Buffer.concat(chunks))).toBe(added.sha256)
    })

    it('leaves no connection behind when it stops', async () => {
      await call('stop')
      await expect.poll(() => kit.node.connections().length).toBe(0)
    })

    it('dials over wss', async () => {
      expect(await call('greet', at('/tls/ws/'))).toMatchObject({ transport: 'websocket' })
      expect(await call('echo', at('/tls/ws/'), 1 << 20)).toBe(true)
      await call('stop')
    })

    it('is told what it can not dial', async () => {
      expect(await call('refusal', '/ip4/127.0.0.1/tcp/9/ws')).toBe('UnavailableError unreachable')
      expect(await call('refusal', '/ip4/127.0.0.1/tcp/9')).toBe('UnavailableError no-transport')
    })

    it('is examples/browser: prints who answers, how fast, and what it fetched', async () => {
      const bytes = seededBytes(400_000, 5)
      const { cid } = await kit.add([bytes])
      const shown = await browser.newPage()
      await shown.goto(`${origin}/example/index.html?peer=${encodeURIComponent(at('/ws/'))}&cid=${String(cid)}`)
      await expect.poll(() => shown.textContent('body'), { timeout: 10_000 }).toContain('stopped')
      const text = await shown.innerText('body')
      expect(text).toMatch(/rhiza\/\S+ by websocket\n(ping [\d.]+ ms\n){3}400000 bytes, SHA-256 /)
      expect(text).toContain(sha256(bytes))
    })

    describe.skipIf(!have.go)('go-libp2p', () => {
      let go: Peer
      beforeAll(async () => {
        go = await startPeer('go', ['--listen', '/ip4/127.0.0.1/tcp/0/ws'])
      })
      afterAll(() => go.stop())

      it('is dialled, pinged and fetched from by the page', async () => {
        const addr = go.addrs[0] ?? ''
        const greeting = await call('greet', addr)
        expect(greeting.agent).toContain('go')
        expect(greeting.rttMs).toHaveLength(5)
        expect(await call('echo', addr, 1 << 20)).toBe(true)
        const { cid } = await go.call('addBytes', { size: 3_000_000, seed: 6, profile: 'v1-2025' })
        expect(await call('fetch', addr, String(cid))).toBe(sha256(seededBytes(3_000_000, 6)))
        await call('stop')
      })
    })

    it('had no error that nobody caught', () => {
      expect(problems).toEqual([])
    })
  },
)
