import { mkdtemp, rm, stat } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { makeDirectory } from '../../src/store/durable.ts'
import { openRepo } from '../../src/store/repo.ts'

it('makes a directory with those above it, once for all that ask at once', async () => {
  const root = await mkdtemp(join(tmpdir(), 'rhiza-directory-'))
  try {
    const path = join(root, 'a', 'b', 'c')
    const made = await Promise.all(Array.from({ length: 8 }, () => makeDirectory(path)))
    expect(made.filter(Boolean)).toHaveLength(1)
    expect((await stat(path)).isDirectory()).toBe(true)
    expect(await makeDirectory(path)).toBe(false)
  } finally {
    await rm(root, { recursive: true })
  }
})

it.skipIf(!existsSync('/proc/self'))('gives up where no directory can be made, however often it is tried', async () => {
  await expect(makeDirectory('/proc/rhiza/deep')).rejects.toMatchObject({ code: 'ENOENT' })
  await expect(openRepo('/proc/rhiza')).rejects.toMatchObject({ name: 'StorageError', code: 'io' })
})
