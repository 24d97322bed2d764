/* Peers whose certificates or TLS are not what libp2p asks for: each costs the honest side one typed error. */
import { generateKeyPairSync, sign } from 'node:crypto'
import net from 'node:net'
import tls from 'node:tls'
import { afterEach, describe, expect, it, onTestFinished } from 'vitest'
import { fromHex, toHex } from '../../../src/bytes.ts'
import { fakeEnv } from '../../../src/env.ts'
import { ClosedError, ProtocolError, TimeoutError, errorCode } from '../../../src/errors.ts'
import { generateKey } from '../../../src/peer/keys.ts'
import {
  encodeCertificate,
  encodeTbs,
  signedText,
  type CertificateFields,
} from '../../../src/security/tls/certificate.ts'
import { createTls } from '../../../src/security/tls/tls.ts'
import { SocketWire } from '../../../src/socket-wire.ts'
import { WireStream } from '../../../src/wire.ts'

const pem = (label: string, bytes: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(bytes).toString('base64')}\n-----END ${label}-----\n`

const unhandled: unknown[] = []
process.on('unhandledRejection', (error) => unhandled.push(error))
afterEach(() => expect(unhandled).toEqual([]))

interface Forged {
  cert: string
  key: string
}

/** A certificate with one thing wrong. */
async function forge(
  change: (fields: CertificateFields) => void | Promise<void>,
  changeTbs: (tbs: Uint8Array) => Uint8Array = (tbs) => tbs,
): Promise<Forged> {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const identity = generateKey()
  const spki = new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' }))
  const now = fakeEnv().clock.wallTime()
  const fields = {
    spki,
    serial: Uint8Array.of(1),
    notBeforeMs: now - 1000,
    notAfterMs: now + 1e9,
    identityKey: identity.publicKey.encoded,
    identitySig: await identity.sign(signedText(spki)),
  }
  await change(fields)
  const tbs = changeTbs(encodeTbs(fields))
  return {
    cert: pem('CERTIFICATE', encodeCertificate(tbs, sign('sha256', tbs, pair.privateKey))),
    key: String(pair.privateKey.export({ type: 'pkcs8', format: 'pem' })),
  }
}

const honest = (): Promise<Forged> => forge(() => {})

/** One whose only extension is unknown. */
const foreign = (): Promise<Forged> =>
  forge(
    () => {},
    (tbs) => fromHex(toHex(tbs).replace('2b0601040183a25a0101', '2b0601040183a25a0102')),
  )

/** Two joined sockets. */
async function sockets(): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true })
  server.listen(0, '127.0.0.1')
  await new Promise((listening) => server.once('listening', listening))
  const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve))
  const { port } = server.address() as net.AddressInfo
  const a = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  const b = quietly(await accepted)
  server.close()
  onTestFinished(() => {
    a.destroy()
    b.destroy()
  })
  return [a, b]
}

/** Our side against whoever `them` makes of the other socket: its error's code. */
async function against(
  role: 'initiator' | 'responder',
  them: (socket: net.Socket) => void,
): Promise<{ code: unknown; error: Error | undefined }> {
  const [ours, theirs] = await sockets()
  const env = fakeEnv()
  them(theirs)
  const protocol = createTls({ privateKey: generateKey(), env })
  const stream = new WireStream(new SocketWire(ours))
  const [result] = await Promise.allSettled([protocol.secure(role, stream, { muxers: ['/yamux/1.0.0'] })])
  expect(env.clock.waiting).toBe(0)
  if (result.status === 'fulfilled') {
    result.value.wire.abort()
    return { code: 'no error', error: undefined }
  }
  await stream.closed
  expect(ours.destroyed).toBe(true)
  return { code: errorCode(result.reason), error: result.reason as Error }
}

const quietly = <T extends net.Socket>(socket: T): T => socket.on('error', () => {})
const server = (options: tls.TLSSocketOptions) => (socket: net.Socket) =>
  void quietly(
    new tls.TLSSocket(quietly(socket), { isServer: true, requestCert: true, ALPNProtocols: ['libp2p'], ...options }),
  )
const client = (options: tls.ConnectionOptions) => (socket: net.Socket) =>
  void quietly(
    tls.connect({ socket: quietly(socket), rejectUnauthorized: false, ALPNProtocols: ['libp2p'], ...options }),
  )

/** As dialer and as listener. */
const both = async (forged: Partial<Forged>): Promise<unknown[]> => [
  (await against('initiator', server(forged))).code,
  (await against('responder', client(forged))).code,
]

describe('a TLS peer', () => {
  it('that is honest gets through', async () => {
    expect(await both(await honest())).toEqual(['no error', 'no error'])
  })

  it('with two certificates is refused, whether or not one made the other', async () => {
    const [one, two] = [await honest(), await honest()]
    expect(await both({ ...one, cert: one.cert + two.cert })).toEqual(['bad-handshake', 'bad-handshake'])
    expect(await both({ ...one, cert: one.cert + one.cert })).toEqual(['bad-handshake', 'bad-handshake'])
    const { cert } = await foreign()
    expect(await both({ ...one, cert: one.cert + cert })).toEqual(['bad-handshake', 'bad-handshake'])
  })

  it('with a certificate that is over, or not valid yet, is refused', async () => {
    const now = fakeEnv().clock.wallTime()
    expect(await both(await forge((f) => void (f.notAfterMs = now - 5000)))).toEqual(['bad-handshake', 'bad-handshake'])
    expect(await both(await forge((f) => void (f.notBeforeMs = now + 5000)))).toEqual([
      'bad-handshake',
      'bad-handshake',
    ])
  })

  it('that did not sign its certificate’s key is refused', async () => {
    const stranger = generateKey()
    const forged = await forge(async (f) => void (f.identitySig = await stranger.sign(signedText(f.spki))))
    expect(await both(forged)).toEqual(['bad-signature', 'bad-signature'])
    const empty = await forge((f) => void (f.identitySig = new Uint8Array(0)))
    expect(await both(empty)).toEqual(['bad-signature', 'bad-signature'])
  })

  it('with an identity key that is none is refused', async () => {
    const forged = await forge((f) => void (f.identityKey = fromHex('0805')))
    expect(await both(forged)).toEqual(['bad-key', 'bad-key'])
  })

  it('without the libp2p extension is refused', async () => {
    expect(await both(await foreign())).toEqual(['bad-handshake', 'bad-handshake'])
  })

  it('whose certificate is huge is refused', async () => {
    const big = await forge((f) => void (f.identitySig = new Uint8Array(20_000)))
    expect(await both(big)).toEqual(['oversized', 'oversized'])
    // Above what OpenSSL takes itself: a chain of 8 times 20 KB.
    const chain = { ...big, cert: big.cert.repeat(8) }
    expect(await both(chain)).toEqual(['oversized', 'oversized'])
  })

  it('without a certificate is refused, and told so', async () => {
    const heard = new Promise((resolve) => {
      void against('responder', (socket) =>
        tls
          .connect({ socket: quietly(socket), rejectUnauthorized: false, ALPNProtocols: ['libp2p'] })
          .on('error', (error: NodeJS.ErrnoException) => resolve(error.code)),
      ).then(({ code }) => expect(code).toBe('bad-handshake'))
    })
    expect(await heard).toContain('CERTIFICATE_REQUIRED')
  })

  it('that speaks TLS 1.2 is refused', async () => {
    const forged = await honest()
    const old = { ...forged, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as const
    expect((await against('responder', client(old))).code).toBe('bad-handshake')
    expect((await against('initiator', server(old))).code).toBe('bad-handshake')
  })

  it('that offers no protocol that we have is refused by alert, and its alert is understood', async () => {
    const forged = await honest()
    expect((await against('responder', client({ ...forged, ALPNProtocols: ['h2'] }))).code).toBe('bad-negotiation')
    const { code, error } = await against('initiator', server({ ...forged, ALPNCallback: () => undefined }))
    expect([code, error?.message]).toEqual(['bad-negotiation', 'no common muxer: the server has none that we offer'])
  })

  it('that ends within the handshake is heard of at once', async () => {
    expect((await against('responder', (socket) => void socket.end())).code).toBe('reset')
    expect((await against('initiator', (socket) => void socket.end())).code).toBe('reset')
  })

  it('that answers with something else than TLS is refused', async () => {
    const { code, error } = await against(
      'initiator',
      (socket) => void socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'),
    )
    expect(code).toBe('bad-handshake')
    expect(error).toBeInstanceOf(ProtocolError)
    expect((await against('responder', (socket) => void socket.write(new Uint8Array(100)))).code).toBe('bad-handshake')
  })

  it('that never finishes runs into the deadline', async () => {
    const [ours] = await sockets()
    const env = fakeEnv()
    const stream = new WireStream(new SocketWire(ours))
    const secured = createTls({ privateKey: generateKey(), env }).secure('responder', stream, { muxers: [] })
    const failed = expect(secured).rejects.toBeInstanceOf(TimeoutError)
    await env.clock.advance(10_000)
    await failed
    await stream.closed
    expect(env.clock.waiting).toBe(0)
  })

  it('that resets at any point of the handshake costs one ClosedError and leaves nothing open', async () => {
    const forged = await honest()
    for (const role of ['initiator', 'responder'] as const) {
      const errors: (Error | undefined)[] = []
      for (const after of [0, 1, 4, 5, 6, 50, 100, 200, 300, 500, 700, 900, 1100]) {
        const [inner, outer] = await sockets()
        const { error } = await against(role, (socket) => {
          quietly(role === 'initiator' ? inner : outer)
          // A middleman that hands on so many of the peer's bytes, then resets both.
          let left = after
          const cut = (): void => {
            for (const one of [socket, outer]) if (!one.destroyed) one.resetAndDestroy()
          }
          quietly(outer).on('data', (bytes: Buffer) => {
            socket.write(bytes.subarray(0, left), () => left <= 0 && cut())
            left -= bytes.length
          })
          quietly(socket).on('data', (bytes: Buffer) => void outer.write(bytes))
          ;(role === 'initiator' ? server : client)(forged)(inner)
          if (after === 0) cut()
        })
        errors.push(error)
      }
      // At the end of the handshake it is too late to fail.
      const failed = errors.filter((error) => error !== undefined)
      expect(failed.length).toBeGreaterThan(8)
      for (const error of failed) expect(error, role).toBeInstanceOf(ClosedError)
    }
  })

  it('that takes our certificate for bad is shown in the error of what comes next', async () => {
    const [ours, theirs] = await sockets()
    const stream = new WireStream(new SocketWire(ours))
    const forged = await honest()
    const refuser = new tls.TLSSocket(quietly(theirs), {
      isServer: true,
      ALPNProtocols: ['libp2p'],
      requestCert: true,
      ...forged,
    })
    quietly(refuser)
    const secured = await createTls({ privateKey: generateKey(), env: fakeEnv() }).secure('initiator', stream, {
      muxers: [],
    })
    // A server looks at our certificate only when our handshake is done.
    theirs.resetAndDestroy()
    const end = await new Promise<Error | undefined>((resolve) =>
      secured.wire.start({ data: () => true, end: resolve, onRoom: () => {} }),
    )
    expect(end).toBeInstanceOf(ClosedError)
    expect(end?.message).toContain('it may have refused our certificate')
    await secured.wire.closed
  })
})
