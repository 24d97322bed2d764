import { generateKey, pair } from 'rhiza'
import { handshakeInitiator, handshakeResponder } from 'rhiza/noise'

const [here, there] = pair()
const privateKey = generateKey()
const [ana, ben] = await Promise.all([handshakeInitiator(here, { privateKey }), handshakeResponder(there)])
const sealed = ana.encrypt(new TextEncoder().encode('for your eyes only'))
console.log(new TextDecoder().decode(ben.decrypt(sealed)))
console.log(ben.remotePeer?.equals(privateKey.publicKey.peerId), ana.remotePeer === undefined)
