import { createNode, generateKey } from 'rhiza'
import { systemEnv } from 'rhiza/env'
import { generatePreSharedKey, pnet } from 'rhiza/pnet'
import { createTls } from 'rhiza/tls'

const network = pnet(generatePreSharedKey())
const privateKey = generateKey()
const hub = await createNode({
  listen: ['/ip4/127.0.0.1/tcp/0'],
  privateKey,
  security: [createTls({ privateKey, env: systemEnv() })],
  connectionProtector: network,
})
const member = await createNode({ connectionProtector: network })
await hub.start()
await member.start()
const { security, muxer } = await member.dial(hub.addrs())
console.log(security, muxer)
await member.stop()
await hub.stop()
