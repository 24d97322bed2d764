/*
 * Private keys by name, one file each, mode 0600: the bytes of a libp2p PrivateKey message, which is what Kubo's
 * `ipfs key export` writes (libp2p-protobuf-cleartext). A key is never replaced: with it its name would be lost. Node only.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Crypto } from '../crypto/crypto.ts'
import { StorageError } from '../errors.ts'
import { createKeyFile, readKeyFile } from '../peer/identity.ts'
import type { PrivateKey } from '../peer/keys.ts'
import { makeDirectory, storing, syncDirectory, systemCode } from './durable.ts'

const pattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const ending = '.key'

/** Throws TypeError for a name that is none; `self` is the repo's own key, which lies elsewhere. */
export function checkKeyName(name: string): void {
  if (name === 'self') throw new TypeError('"self" is the key of the repo itself: choose another name')
  if (pattern.test(name)) return
  throw new TypeError(
    `${JSON.stringify(name.slice(0, 80))} is no name for a key: want up to 64 letters, digits, dots, dashes and underscores`,
  )
}

export class Keystore {
  readonly #directory: string
  readonly #crypto: Crypto | undefined

  constructor(directory: string, crypto?: Crypto) {
    this.#directory = directory
    this.#crypto = crypto
  }

  #path(name: string): string {
    checkKeyName(name)
    return join(this.#directory, `${name}${ending}`)
  }

  /** Names in order. */
  async list(): Promise<string[]> {
    const files = await storing(this.#directory, async () => {
      try {
        return await readdir(this.#directory)
      } catch (error) {
        if (systemCode(error) === 'ENOENT') return []
        throw error
      }
    })
    const names = files.filter((file) => file.endsWith(ending)).map((file) => file.slice(0, -ending.length))
    return names.filter((name) => pattern.test(name)).toSorted()
  }

  /** Undefined where there is none. Rejects with TypeError for a name that is none, with StorageError `corrupt`. */
  get(name: string): Promise<PrivateKey | undefined> {
    return readKeyFile(this.#path(name), 'key', this.#crypto)
  }

  /** Rejects with StorageError `exists`, also where a name differs in case alone. */
  async put(name: string, key: PrivateKey): Promise<void> {
    const path = this.#path(name)
    await storing(this.#directory, () => makeDirectory(this.#directory, 0o700))
    const taken = (await this.list()).find((other) => other.toLowerCase() === name.toLowerCase())
    if (taken === undefined && (await createKeyFile(path, key))) return
    throw new StorageError(
      'exists',
      path,
      `there is a key "${taken ?? name}" already: choose another name, or remove it`,
    )
  }

  /** Whether there was one. */
  async delete(name: string): Promise<boolean> {
    const path = this.#path(name)
    return storing(path, async () => {
      try {
        await rm(path)
      } catch (error) {
        if (systemCode(error) === 'ENOENT') return false
        throw error
      }
      await syncDirectory(this.#directory)
      return true
    })
  }
}
