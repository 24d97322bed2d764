/*
 * Noise without sockets: records sealed and opened in one call stack, and handshakes over streams in memory.
 * Prints one line of JSON: MB/s at 64 KiB, records per second at 32 bytes, handshakes per second (both sides).
 * `noble` as argument measures the portable backend.
 */
import { nativeCrypto } from '../../src/crypto/native.ts'
import { nobleCrypto } from '../../src/crypto/noble.ts'
import { systemEnv } from '../../src/env.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import { NoiseRecords } from '../../src/security/noise/records.ts'
import { CipherState } from '../../src/security/noise/symmetric.ts'
import { pair } from '../../src/stream.ts'

const crypto = process.argv[2] === 'noble' ? nobleCrypto : nativeCrypto
const rounds = 5

function records(): NoiseRecords {
  const aead = crypto.chaCha20Poly1305(new Uint8Array(32))
  return new NoiseRecords({ send: new CipherState(aead), receive: new CipherState(aead) })
}

/** Best of several rounds, calls per second: the machine is shared. */
function perSecond(calls: number, run: () => void): number {
  let best = 0
  for (let round = 0; round < rounds; round++) {
    const start = performance.now()
    for (let i = 0; i < calls; i++) run()
    best = Math.max(best, (calls / (performance.now() - start)) * 1000)
  }
  return best
}

function measure(size: number, calls: number): { seal: number; open: number } {
  const chunks = [new Uint8Array(12), new Uint8Array(size - 12)]
  const from = records()
  const sealed: Uint8Array[] = []
  for (let i = 0; i < calls * rounds; i++) from.seal(chunks, size, sealed)
  const wire = Buffer.concat(sealed)
  const sender = records()
  const seal = perSecond(calls, () => sender.seal(chunks, size, []))
  // As sockets deliver it: 64 KiB a read, so that records lie across reads.
  const receiver = records()
  let at = 0
  const reads = Math.floor(wire.length / 65_536 / rounds)
  const open = perSecond(reads, () => receiver.open(wire.subarray(at, (at += 65_536)), []))
  return { seal, open: (open * 65_536) / (wire.length / (calls * rounds)) }
}

async function handshakes(count: number): Promise<number> {
  const noise = Array.from({ length: 2 }, () =>
    createNoise({ privateKey: generateKey('Ed25519', crypto), env: systemEnv(), crypto }),
  )
  const options = { muxers: ['/yamux/1.0.0'] }
  let best = 0
  for (let round = 0; round < rounds; round++) {
    const start = performance.now()
    for (let i = 0; i < count; i++) {
      const [a, b] = pair()
      await Promise.all([noise[0]?.secure('initiator', a, options), noise[1]?.secure('responder', b, options)])
      a.reset()
    }
    best = Math.max(best, (count / (performance.now() - start)) * 1000)
  }
  return best
}

const megabytes = (perSec: number): number => Math.round((perSec * 65_519) / 1e6)

async function main(): Promise<void> {
  const large = measure(65_519, crypto.name === 'native' ? 400 : 60)
  const small = measure(32, 20_000)

  const result = {
    bench: 'micro/noise',
    crypto: crypto.name,
    sealMBps: megabytes(large.seal),
    openMBps: megabytes(large.open),
    sealSmallPerSec: Math.round(small.seal),
    openSmallPerSec: Math.round(small.open),
    handshakesPerSec: Math.round(await handshakes(crypto.name === 'native' ? 200 : 20)),
  }
  process.stdout.write(`${JSON.stringify(result)}\n`)
}

void main()
