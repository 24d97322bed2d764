import { createKit } from 'rhiza'

const query = new URLSearchParams(location.search)
const peer = query.get('peer') ?? ''
const print = (line: string): void => document.body.append(line, document.createElement('br'))

const kit = await createKit()
await kit.start()
const { agent } = await kit.node.identify(peer)
print(`${agent} by ${kit.node.connections()[0]?.transport}`)
for await (const ms of kit.node.ping(peer, { count: 3 })) print(`ping ${ms.toFixed(1)} ms`)
const chunks: BlobPart[] = []
for await (const bytes of kit.cat(query.get('cid') ?? '', { peers: [peer] })) chunks.push(bytes.slice())
const file = await new Blob(chunks).arrayBuffer()
const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', file))
print(`${file.byteLength} bytes, SHA-256 ${Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('')}`)
await kit.stop()
print('stopped')
