/* The built package under Deno and Bun, as a peer of rhiza on Node: the same lines drive runtimes/peer.js there. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemEnv } from '../../src/env.ts'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { generateKey, type KeyType } from '../../src/peer/keys.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import { createTls } from '../../src/security/tls/tls.ts'
import { available, builtPeers, buildPeers, seededBytes, startProcess, type Peer } from './peers.ts'

const root = resolve(import.meta.dirname, '../..')
const commands = { deno: ['run', '--allow-all', '--no-prompt'], bun: ['run'] } as const
const names = { deno: 'Deno', bun: 'Bun' } as const
const stacks = [
  ['/noise', '/ip4/127.0.0.1/tcp/0'],
  ['/tls/1.0.0', '/ip4/127.0.0.1/tcp/0'],
  ['/noise', '/ip4/127.0.0.1/tcp/0/ws'],
] as const

await buildPeers()
const have = available()
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe('rhiza under', () => {
  /** A project that has the package, built from these sources, and its dependencies. */
  let project: string
  beforeAll(() => {
    project = mkdtempSync(join(tmpdir(), 'rhiza-runtimes-'))
    const installed = join(project, 'node_modules', 'rhiza')
    mkdirSync(installed, { recursive: true })
    cpSync(join(root, 'package.json'), join(installed, 'package.json'))
    const pinned = join(root, 'node_modules', '.bin', 'node')
    const tsc = [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'tsconfig.build.json'), '--noCheck']
    execFileSync(pinned, [...tsc, '--outDir', join(installed, 'dist')], { stdio: 'pipe' })
    execFileSync(pinned, [join(root, 'scripts/dist-package.ts')], { cwd: installed, stdio: 'pipe' })
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { dependencies: object }
    for (const name of Object.keys(dependencies)) {
      const link = join(project, 'node_modules', name)
      mkdirSync(dirname(link), { recursive: true })
      symlinkSync(join(root, 'node_modules', name), link)
    }
    writeFileSync(join(project, 'package.json'), '{"type":"module","private":true}')
    cpSync(join(import.meta.dirname, 'runtimes/peer.js'), join(project, 'peer.js'))
  })
  afterAll(() => rmSync(project, { recursive: true, force: true }))

  const run = (runtime: keyof typeof commands, ...args: string[]): Promise<Peer> =>
    startProcess('rhiza', builtPeers()[runtime] ?? '', [...commands[runtime], join(project, 'peer.js'), ...args])

  for (const runtime of ['deno', 'bun'] as const) {
    describe.skipIf(!have[runtime])(names[runtime], () => {
      describe.each(stacks)('with %s on %s', (security, listen) => {
        let peer: Peer
        let kit: Kit
        beforeAll(async () => {
          peer = await run(runtime, listen, security)
          const privateKey = generateKey('Ed25519')
          const create = security === '/noise' ? createNoise : createTls
          kit = await createKit({ privateKey, listen: [listen], security: [create({ privateKey, env: systemEnv() })] })
          kit.node.handle('/echo/1.0.0', async (stream) => {
            for await (const chunk of stream) await stream.write(chunk)
            await stream.closeWrite()
          })
          await kit.start()
        })
        afterAll(async () => {
          await kit?.stop()
          await peer?.stop()
        })

        it('dials Node, identifies and pings it, has its echo, and fetches a file from it', async () => {
          const addr = String(kit.node.addrs()[0])
          const { agent, protocols } = await peer.call('identify', { addr })
          expect(agent).toMatch(/^rhiza\//)
          expect(protocols).toContain('/ipfs/bitswap/1.2.0')
          expect((await peer.call('ping', { addr, count: 3 }))['rttMs']).toHaveLength(3)
          const bytes = Buffer.from(seededBytes(700_000, 1)).toString('base64')
          expect((await peer.call('echo', { addr, bytes }))['bytes']).toBe(bytes)
          const file = seededBytes(5_000_000, 2)
          const { cid } = await kit.add([file])
          const fetched = await peer.call('fetch', { addr, cid: String(cid) })
          expect(fetched).toMatchObject({ size: file.length, sha256: sha256(file) })
          expect(kit.node.connections()).toMatchObject([{ direction: 'inbound', security }])
        })

        it('answers Node, and gives it a file', async () => {
          await kit.node.hangUp(peer.peerId)
          const there = peer.addrs[0] ?? ''
          expect((await kit.node.identify(there)).agent).toMatch(/^rhiza\//)
          expect(await Array.fromAsync(kit.node.ping(there, { count: 3 }))).toHaveLength(3)
          const file = seededBytes(5_000_000, 3)
          const { cid } = await peer.call('addBytes', { base64: Buffer.from(file).toString('base64') })
          const chunks = await Array.fromAsync(kit.cat(String(cid), { peers: [there] }))
          expect(sha256(Buffer.concat(chunks))).toBe(sha256(file))
          expect(kit.node.connections()).toMatchObject([{ direction: 'outbound', security }])
        })
      })

      it('signs and verifies with every type of key, and verifies what Node signed', async () => {
        const peer = await run(runtime)
        try {
          const message = Buffer.from('from Node')
          for (const type of ['Ed25519', 'RSA', 'Secp256k1', 'ECDSA'] satisfies KeyType[]) {
            const key = await Promise.resolve(generateKey(type))
            const signed = {
              type,
              publicKey: Buffer.from(key.publicKey.encoded).toString('base64'),
              message: message.toString('base64'),
              signature: Buffer.from(await key.sign(message)).toString('base64'),
            }
            expect(await peer.call('keys', signed), type).toMatchObject({ own: true, forged: false, theirs: true })
          }
        } finally {
          await peer.stop()
        }
      })

      it('ends by itself when its node has stopped, with nothing on stderr', async () => {
        const peer = await run(runtime)
        // stop() kills a process that does not end within five seconds.
        const start = performance.now()
        await peer.stop()
        expect(performance.now() - start).toBeLessThan(4000)
        expect(peer.log()).toBe('')
      })
    })
  }
})
