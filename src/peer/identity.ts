/*
 * The node's private key in a file: the bytes of a libp2p PrivateKey message (peer-ids 3A r2 §Keys), as go-libp2p and
 * js-libp2p marshal it, mode 0600. Created once and never written again: a file that cannot be read is never replaced,
 * because with it the node's name would be lost. Node only.
 */
import { constants } from 'node:fs'
import { copyFile, link, mkdir, open, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { randomUUID } from 'node:crypto'
import { platformCrypto } from '#crypto'
import type { Crypto } from '../crypto/crypto.ts'
import { asError, StorageError, UnavailableError } from '../errors.ts'
import { storageError, syncDirectory, systemCode } from '../store/durable.ts'
import { decodePrivateKey, generateKey, importPrivateKey } from './keys.ts'
import type { PrivateKey } from './keys.ts'

/** Bytes of an identity file that are read: more than any key message may have, so that the rest cannot make it valid. */
const maxBytes = 8192

/** The bytes to store: secret. */
export function encodeIdentity(key: PrivateKey): Uint8Array {
  return key.encoded.slice()
}

/** Throws ProtocolError `bad-key`. */
export function decodeIdentity(bytes: Uint8Array, crypto: Crypto = platformCrypto): PrivateKey {
  return decodePrivateKey(bytes, crypto)
}

/**
 * The key in the file at `path`, made on the first call (with the folders above it). Of several processes that make it
 * at once one wins and all return the winner's. A key of any type is read. Rejects with StorageError, which names the
 * path and what to do.
 */
export async function loadOrCreateIdentity(path: string, crypto: Crypto = platformCrypto): Promise<PrivateKey> {
  const stored = await readKeyFile(path, 'identity', crypto)
  if (stored !== undefined) return stored
  const key = generateKey('Ed25519', crypto)
  if (await createKeyFile(path, key)) return key
  const winner = await readKeyFile(path, 'identity', crypto)
  if (winner !== undefined) return winner
  throw new StorageError('io', path, 'identity file came and went while it was made, or is a link to nothing')
}

/** A key in a file; undefined where there is none. `what` names it in errors. Rejects with StorageError. */
export async function readKeyFile(
  path: string,
  what: string,
  crypto: Crypto = platformCrypto,
): Promise<PrivateKey | undefined> {
  let bytes
  try {
    const file = await open(path, 'r')
    try {
      const buffer = new Uint8Array(maxBytes)
      let length = 0
      for (let n = -1; n !== 0 && length < buffer.length; length += n) {
        n = (await file.read(buffer, length, buffer.length - length)).bytesRead
      }
      bytes = buffer.slice(0, length)
      buffer.fill(0)
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return undefined
    throw storageError(path, cause)
  }
  try {
    return await importPrivateKey(bytes, crypto)
  } catch (cause) {
    const reason = asError(cause).message
    if (cause instanceof UnavailableError) throw new UnavailableError('unsupported', `${what} file ${path}: ${reason}`)
    const next = `restore it from a backup, or move it away to start with a new ${what}`
    throw new StorageError('corrupt', path, `${what} file holds no private key (${reason}); ${next}`, { cause })
  }
}

/** Mode 0600, durable. False where there is a file already, which stays as it is. */
export async function createKeyFile(path: string, key: PrivateKey): Promise<boolean> {
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    try {
      const file = await open(temporary, 'wx', 0o600)
      try {
        await file.writeFile(key.encoded)
        await file.sync()
      } finally {
        await file.close()
      }
      await publish(temporary, path)
    } finally {
      await rm(temporary, { force: true })
    }
    await syncDirectory(dirname(path))
    return true
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') return false
    throw storageError(path, cause)
  }
}

/** A hard link never replaces what is there, and the file appears with all its bytes at once; rename would replace. */
async function publish(temporary: string, path: string): Promise<void> {
  try {
    await link(temporary, path)
  } catch (cause) {
    // no hard links here (FAT, Android): an exclusive copy does not replace either, but can be seen half written
    if (!['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(systemCode(cause) ?? '')) throw cause
    await copyFile(temporary, path, constants.COPYFILE_EXCL)
  }
}
