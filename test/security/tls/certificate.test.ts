import { X509Certificate, createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, empty, equals, fromHex, fromUtf8, toHex } from '../../../src/bytes.ts'
import { nativeCrypto } from '../../../src/crypto/native.ts'
import { der, DerReader, derTags } from '../../../src/der.ts'
import { FakeClock, fakeEnv } from '../../../src/env.ts'
import { ProtocolError, errorCode } from '../../../src/errors.ts'
import { generateKey, keyTypes, type KeyType } from '../../../src/peer/keys.ts'
import {
  certificateBytes,
  checkValidity,
  decodeCertificate,
  encodeCertificate,
  encodeTbs,
} from '../../../src/security/tls/certificate.ts'
import { makeCredentials, verifyCertificate } from '../../../src/security/tls/credentials.ts'
import { specCases } from '../../vectors.ts'

interface Case {
  name: string
  certificate: string
  peerId?: string
}

const published = specCases('tls/certificates.json') as Case[]
const signed = specCases('tls/schemes.json') as Case[]

/** An env whose clock stands at `wallMs`. */
function at(wallMs: number) {
  return { ...fakeEnv(), clock: new FakeClock(0, wallMs) }
}

const verified = (certificate: Uint8Array, env = fakeEnv()): Promise<unknown> =>
  verifyCertificate(certificate, { env, crypto: nativeCrypto }).then(
    (key) => key.peerId.toString(),
    (error: unknown) => errorCode(error) ?? error,
  )

const extension = (oid: string, ...more: Uint8Array[]): Uint8Array =>
  der(derTags.sequence, der(derTags.oid, fromHex(oid)), ...more, der(derTags.octetString, fromUtf8('x')))

describe('libp2p certificates', () => {
  it.each(published.map((c) => [c.name, c] as const))('of the spec: %s', async (_name, { certificate, peerId }) => {
    expect(await verified(fromHex(certificate))).toBe(peerId ?? 'bad-signature')
  })

  it('are not valid before their time, nor after it, and to the second', () => {
    const certificate = decodeCertificate(fromHex(published[0]?.certificate ?? ''))
    expect(new Date(certificate.notBeforeMs).toISOString()).toBe('1975-01-01T13:00:00.000Z')
    expect(new Date(certificate.notAfterMs).toISOString()).toBe('4096-01-01T13:00:00.000Z')
    expect(() => checkValidity(certificate, certificate.notBeforeMs - 1)).toThrow(/not valid before 1975/)
    checkValidity(certificate, certificate.notBeforeMs)
    checkValidity(certificate, certificate.notAfterMs + 999)
    expect(() => checkValidity(certificate, certificate.notAfterMs + 1000)).toThrow(/expired at 4096/)
  })

  // Every scheme that peers sign with: OpenSSL made these, with an extension that no identity signed.
  it.each(signed.map((c) => [c.name, c] as const))('signed with %s are told right from wrong', async (name, c) => {
    const bytes = fromHex(c.certificate)
    const inTime = at(Date.UTC(2022, 0, 1))
    const whole = name === 'rsa_pss_sha384'
    if (name === 'nistp384_sha256') {
      expect(await verified(bytes, inTime)).toBe('bad-handshake')
      return
    }
    const key = verifyCertificate(bytes, { env: inTime, crypto: nativeCrypto })
    if (whole) expect((await key).type).toBe('Ed25519')
    // It is the extension that is wrong, not the signature of the certificate.
    else await expect(key).rejects.toThrow(/did not sign the key/)
    expect(await verified(bytes, at(Date.UTC(2122, 0, 1)))).toBe('bad-handshake')
    const flipped = bytes.slice()
    flipped[flipped.length - 1] = (flipped[flipped.length - 1] ?? 0) ^ 1
    await expect(verifyCertificate(flipped, { env: inTime, crypto: nativeCrypto })).rejects.toThrow(
      /not signed by its own key/,
    )
  })

  it.each(Object.keys(keyTypes) as KeyType[])('of our own prove a key of type %s, to OpenSSL as well', async (type) => {
    const privateKey = await generateKey(type)
    const { certificate } = await makeCredentials(privateKey, fakeEnv())
    expect(await verified(certificate)).toBe(privateKey.publicKey.peerId.toString())
    const judged = new X509Certificate(certificate)
    expect(judged.verify(judged.publicKey)).toBe(true)
    expect(judged.checkIssued(judged)).toBe(true)
    expect(judged.validFromDate.getTime()).toBe(1_700_000_000_000 - 3_600_000)
    expect(judged.validToDate.getUTCFullYear()).toBe(2123)
    expect(judged.serialNumber).toHaveLength(32)
  })

  it('of an RSA identity of 8192 bits are small enough', () => {
    const spki = decodeCertificate(fromHex(published[0]?.certificate ?? '')).spki
    const [identityKey, identitySig] = [new Uint8Array(1062), new Uint8Array(1024)]
    const tbs = encodeTbs({
      spki,
      serial: Uint8Array.of(1),
      notBeforeMs: 0,
      notAfterMs: 1000,
      identityKey,
      identitySig,
    })
    const certificate = encodeCertificate(tbs, new Uint8Array(72))
    expect(certificate.length).toBeLessThan(certificateBytes / 6)
    expect(equals(decodeCertificate(certificate).identityKey, identityKey)).toBe(true)
  })

  it('are refused with one error or read as what they are, wherever a byte is changed', async () => {
    const privateKey = generateKey()
    const { certificate } = await makeCredentials(privateKey, fakeEnv())
    const us = privateKey.publicKey.peerId.toString()
    for (let i = 0; i < certificate.length; i++) {
      const changed = certificate.slice()
      changed[i] = (changed[i] ?? 0) ^ (1 << (i % 8))
      const answer = await verified(changed)
      expect(['bad-handshake', 'bad-signature', 'bad-key', 'wrong-peer'], `byte ${i}, not ${us}`).toContain(answer)
    }
  })

  it('that are no certificates throw a ProtocolError and nothing else', () => {
    const whole = fromHex(published[0]?.certificate ?? '')
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.uint8Array({ maxLength: 12 }), fc.nat(6), (from, put, skip) => {
        const bytes = concat([whole.subarray(0, from), put, whole.subarray(from + skip)])
        try {
          expect(toHex(decodeCertificate(bytes).tbs).length).toBeGreaterThan(0)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })

  describe('that break a rule', () => {
    const fields = {
      spki: decodeCertificate(fromHex(published[0]?.certificate ?? '')).spki,
      serial: Uint8Array.of(1),
      notBeforeMs: 0,
      notAfterMs: 4e12,
      identityKey: Uint8Array.of(8, 1),
      identitySig: Uint8Array.of(2),
    }
    /** version, serial, algorithm, issuer, validity, subject, key, extensions */
    const parts = (): { tag: number; contents: Uint8Array }[] => {
      const reader = new DerReader(encodeTbs(fields), 'bad-handshake').enter(derTags.sequence)
      const out = []
      for (let { tag } = reader; tag !== undefined; tag = reader.tag) out.push({ tag, contents: reader.read(tag) })
      return out
    }
    const refused = (change: (body: ReturnType<typeof parts>) => void): string => {
      const body = parts()
      change(body)
      const tbs = der(derTags.sequence, ...body.map(({ tag, contents }) => der(tag, contents)))
      try {
        decodeCertificate(encodeCertificate(tbs, Uint8Array.of(1)))
        return 'no error'
      } catch (error) {
        return (error as Error).message
      }
    }
    const put = (i: number, tag: number, contents: Uint8Array) => (body: ReturnType<typeof parts>) =>
      void body.splice(i, 1, { tag, contents })
    /** One more extension behind ours. */
    const withExtension = (extension: Uint8Array) => (body: ReturnType<typeof parts>) => {
      const inner = new DerReader(body[7]?.contents ?? empty, 'bad-handshake').read(derTags.sequence)
      put(7, 0xa3, der(derTags.sequence, inner, extension))(body)
    }
    const critical = Uint8Array.of(1, 1, 255)
    const validity = (from: string, to = '500101000000Z') =>
      put(4, derTags.sequence, concat([der(0x17, fromUtf8(from)), der(0x17, fromUtf8(to))]))

    it('are refused: version, times, unique ids, algorithms, missing extension', () => {
      expect(refused(() => {})).toBe('no error')
      expect(refused(put(0, 0xa0, Uint8Array.of(2, 1, 1)))).toContain('version is not 3')
      expect(refused(put(2, derTags.sequence, der(derTags.oid, fromHex('2a8648ce3d040303'))))).toContain(
        'two signature',
      )
      expect(refused(validity('700101000000Z'))).toBe('no error')
      for (const none of [
        '700132000000Z',
        '701301000000Z',
        '700229000000Z',
        '700101240000Z',
        '7001010000Z',
        '700101000000+0100',
      ])
        expect(refused(validity(none)), none).toContain('a time that is none')
      expect(refused(put(4, derTags.sequence, empty))).toContain('no validity')
      expect(refused((body) => void body.splice(7, 0, { tag: 0x81, contents: Uint8Array.of(0) }))).toContain(
        'no extensions where they belong',
      )
      expect(refused((body) => void body.pop())).toContain('no extensions')
      expect(refused(put(7, 0xa3, der(derTags.sequence, extension('550403'))))).toContain('no libp2p extension')
    })

    it('are refused for an extension that is critical and unknown, or there twice; others are ignored', () => {
      expect(refused(withExtension(extension('550403')))).toBe('no error')
      expect(refused(withExtension(extension('550403', critical)))).toContain('critical extension')
      expect(refused(withExtension(extension('550403', Uint8Array.of(1, 1, 0))))).toContain('boolean')
      expect(refused(withExtension(extension('2b0601040183a25a0101')))).toContain('twice')
    })

    it('are refused above their size before they are read', () => {
      expect(() => decodeCertificate(new Uint8Array(certificateBytes + 1))).toThrow(/at most 16384/)
    })
  })

  it('are read back as they were written', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 600 }),
        fc.uint8Array({ maxLength: 600 }),
        fc.integer({ min: -600_000_000, max: 60_000_000_000 }),
        (identityKey, identitySig, from) => {
          const spki = decodeCertificate(fromHex(published[1]?.certificate ?? '')).spki
          const times = { notBeforeMs: from * 1000, notAfterMs: from * 1000 + 86_400_000 }
          const tbs = encodeTbs({ spki, serial: Uint8Array.of(1, 2), identityKey, identitySig, ...times })
          const signature = new Uint8Array(createHash('sha256').update(tbs).digest())
          const read = decodeCertificate(encodeCertificate(tbs, signature))
          expect(read).toMatchObject({ scheme: 'ecdsa_secp256r1_sha256', ...times })
          expect(equals(read.tbs, tbs) && equals(read.spki, spki) && equals(read.signature, signature)).toBe(true)
          expect(equals(read.identityKey, identityKey) && equals(read.identitySig, identitySig)).toBe(true)
        },
      ),
    )
  })
})
