import { writeFile } from 'node:fs/promises'
import tls from 'node:tls'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createNode } from '../../src/node.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { websocket } from '../../src/transport/websocket/websocket.ts'
import { certificate } from '../certificate.ts'
import { rhiza, rhizaServe, scratch, type Scratch, type Served } from './rhiza.ts'

let dir: Scratch
let served: Served
const [first, second] = [certificate(['127.0.0.1', 'first']), certificate(['127.0.0.1', 'second'])]
const listen = ['--listen', '/ip4/127.0.0.1/tcp/0/tls/ws']

async function write(pair: { cert: string; key: string }): Promise<void> {
  await writeFile(dir.at('cert.pem'), pair.cert)
  await writeFile(dir.at('key.pem'), pair.key)
}

const files = (): string[] => ['--tls-cert', dir.at('cert.pem'), '--tls-key', dir.at('key.pem')]

beforeAll(async () => {
  dir = await scratch()
  await write(first)
  served = await rhizaServe(dir.at('repo'), [...files(), '--dht', 'none'], listen)
})

afterAll(async () => {
  await served.stop()
  await dir.remove()
})

/** The common name of what the listener shows. */
function shown(): Promise<string> {
  const port = Number(multiaddr(served.addr).value('tcp'))
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
      resolve(socket.getPeerX509Certificate()?.subjectAltName ?? '')
      socket.destroy()
    })
    socket.on('error', reject)
  })
}

it('rhiza serve listens on /tls/ws with the certificate of two files', async () => {
  const node = await createNode({ transports: [websocket({ tls: { ca: first.cert } })] })
  const { value } = await node.ping(served.addr, { count: 1 }).next()
  expect(value).toBeGreaterThan(0)
  await node.stop()
})

it('reads them again at SIGHUP, and keeps what it has where they are no pair', async () => {
  expect(await shown()).toContain('first')
  await writeFile(dir.at('cert.pem'), second.cert)
  const line = new Promise<string>((resolve) => served.child.stdout?.once('data', (b: Buffer) => resolve(b.toString())))
  served.child.kill('SIGHUP')
  expect(JSON.parse(await line)).toMatchObject({ event: 'certificate', reloaded: false })
  expect(await shown()).toContain('first')
  await write(second)
  served.child.kill('SIGHUP')
  await expect.poll(shown).toContain('second')
})

it('says which file it can not read', async () => {
  const args = ['serve', ...listen, '--tls-cert', dir.at('none.pem'), '--tls-key', dir.at('key.pem')]
  const { code, stderr } = await rhiza(args, { repo: dir.at('repo') })
  expect([code, stderr]).toEqual([1, expect.stringContaining('none.pem')])
})
