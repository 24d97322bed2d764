/* WebSocket with go-libp2p and js-libp2p, plain and over TLS, both ways: each end trusts the other's certificate. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { BufferedStream } from '../../src/stream.ts'
import { websocket } from '../../src/transport/websocket/websocket.ts'
import { certificate } from '../certificate.ts'
import { available, buildPeers, seededBytes, startPeer, type Peer } from './peers.ts'

const versions = { go: 'go-libp2p', js: 'js-libp2p' } as const
const forms = { ws: '/ip4/127.0.0.1/tcp/0/ws', wss: '/ip4/127.0.0.1/tcp/0/tls/ws' } as const

await buildPeers()
const have = available()

for (const kind of ['go', 'js'] as const) {
  describe.skipIf(!have[kind]).each(Object.keys(forms) as (keyof typeof forms)[])(
    `${versions[kind]} over %s`,
    (form) => {
      const [ours, theirs] = [certificate(['127.0.0.1', 'localhost']), certificate(['127.0.0.1', 'localhost'])]
      let folder: string
      let peer: Peer
      let kit: Kit
      let there: string
      let here: string

      beforeAll(async () => {
        folder = mkdtempSync(join(tmpdir(), 'rhiza-wss-'))
        const files = { cert: theirs.cert, key: theirs.key, ca: ours.cert }
        const flags = Object.entries(files).flatMap(([name, pem]) => {
          writeFileSync(join(folder, name), pem)
          return [`--tls-${name}`, join(folder, name)]
        })
        peer = await startPeer(kind, ['--listen', forms[form], ...flags])
        there = peer.addrs.find((addr) => /\/ws\//.test(addr)) ?? ''
        kit = await createKit({ transports: [websocket({ tls: { ...ours, ca: theirs.cert } })], listen: [forms[form]] })
        kit.node.handle('/echo/1.0.0', async (stream) => {
          for await (const chunk of stream) await stream.write(chunk)
          await stream.closeWrite()
        })
        await kit.start()
        here = String(kit.node.addrs()[0])
      })
      afterAll(async () => {
        await kit?.stop()
        await peer?.stop()
        rmSync(folder, { recursive: true, force: true })
      })

      it('is dialled, identified and pinged by rhiza', async () => {
        const { node } = kit
        const result = await node.identify(there)
        expect(result.agent).toContain(kind)
        expect(await Array.fromAsync(node.ping(there, { count: 5 }))).toHaveLength(5)
        expect(node.connections()[0]).toMatchObject({
          direction: 'outbound',
          transport: 'websocket',
          muxer: '/yamux/1.0.0',
        })
        expect(result.observedAddr?.toString()).toContain('/ws')
      })

      it('echoes 1 MiB to rhiza, in large and in small writes', async () => {
        const bytes = seededBytes(1 << 20, 7)
        for (const size of [65_536, 1000]) {
          const stream = await kit.node.newStream(there, '/echo/1.0.0')
          const reply = new BufferedStream(stream).readAll(bytes.length + 1)
          for (let at = 0; at < bytes.length; at += size) await stream.write(bytes.slice(at, at + size))
          await stream.closeWrite()
          expect(Buffer.compare(await reply, bytes)).toBe(0)
        }
      })

      it('speaks 1.2 and exchanges files with rhiza both ways', async () => {
        const made = await peer.call('addBytes', { size: 2_000_000, seed: 8, profile: 'v1-2025' })
        const chunks = await Array.fromAsync(kit.cat(String(made['cid']), { peers: [there] }))
        expect(Buffer.compare(Buffer.concat(chunks), seededBytes(2_000_000, 8))).toBe(0)
        const { cid } = await kit.add([seededBytes(2_000_000, 9)])
        expect(await peer.call('fetch', { cid: String(cid), addr: here })).toMatchObject({ size: 2_000_000 })
      })

      it('hears of it when rhiza hangs up, and closes cleanly', async () => {
        const [connection] = kit.node.connections()
        await kit.node.hangUp(peer.peerId)
        await connection?.closed
        expect(kit.node.connections()).toEqual([])
        await expect
          .poll(async () => ((await peer.call('peers'))['peers'] as { connections: number }[]).length, {
            timeout: 5_000,
          })
          .toBe(0)
      })

      it('dials rhiza, identifies, pings and has its echo', async () => {
        await peer.call('connect', { addr: here })
        const id = kit.node.peerId.toString()
        // js-libp2p identifies by itself, and allows itself one such stream at a time.
        const identified = await vi.waitFor(() => peer.call('identify', { peer: id }), 5_000)
        expect(identified['agent']).toMatch(/^rhiza\//)
        expect((await peer.call('ping', { peer: id, count: 5 }))['rttMs']).toHaveLength(5)
        const bytes = seededBytes(700_000, 3)
        const answer = await peer.call('echo', {
          peer: id,
          protocol: '/echo/1.0.0',
          bytes: Buffer.from(bytes).toString('base64'),
        })
        expect(Buffer.compare(Buffer.from(String(answer['bytes']), 'base64'), bytes)).toBe(0)
        const inbound = kit.node.connections().find(({ direction }) => direction === 'inbound')
        expect(inbound?.transport).toBe('websocket')
        expect(String(inbound?.remoteAddr)).toMatch(
          form === 'ws' ? /^\/ip4\/127\.0\.0\.1\/tcp\/\d+\/ws$/ : /\/tls\/ws$/,
        )
        await peer.call('disconnect', { peer: id })
        await expect.poll(() => kit.node.connections().length).toBe(0)
      })

      if (form === 'wss')
        it('is not dialled where nobody vouches for it, nor dials such a one', async () => {
          const stranger = await createKit({ transports: [websocket({ tls: theirs })], listen: [forms.wss] })
          await stranger.start()
          try {
            await expect(stranger.node.dial(there)).rejects.toMatchObject({ code: 'unreachable' })
            await expect(peer.call('connect', { addr: String(stranger.node.addrs()[0]) })).rejects.toThrow()
          } finally {
            await stranger.stop()
          }
        })
    },
  )
}
