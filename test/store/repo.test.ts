import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cidOf } from '../../src/ipld/cid.ts'
import { openRepo } from '../../src/store/repo.ts'

let root: string
let path: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'rhiza-repo-'))
  path = join(root, 'deep', 'repo')
})
afterEach(() => rm(root, { recursive: true, force: true }))

describe('a repo', () => {
  it('is made for its owner only, and holds no identity until asked', async () => {
    const repo = await openRepo(path)
    expect((await stat(path)).mode & 0o777).toBe(0o700)
    expect((await readdir(path)).toSorted()).toEqual(['blocks', 'version'])
    expect(await readFile(join(path, 'version'), 'utf8')).toBe('1\n')
    await repo.identity()
    expect((await stat(join(path, 'identity'))).mode & 0o777).toBe(0o600)
    await repo.close()
  })

  it('keeps identity and blocks when it is opened again', async () => {
    const bytes = Uint8Array.of(1, 2, 3)
    const first = await openRepo(path)
    const key = await first.identity()
    await first.blocks.put(cidOf(0x55, bytes), bytes)
    await first.close()
    const again = await openRepo(path)
    expect((await again.identity()).encoded).toEqual(key.encoded)
    expect(await again.blocks.get(cidOf(0x55, bytes))).toEqual(bytes)
    await again.close()
  })

  it('keeps records when asked to, in a file of its own', async () => {
    const first = await openRepo(path)
    const records = await first.records()
    expect(await first.records()).toBe(records)
    await records.put('/a', Uint8Array.of(1))
    expect(await readdir(path)).toContain('records.sqlite')
    await first.close()
    await expect(records.get('/a')).rejects.toMatchObject({ code: 'closed' })
    const again = await openRepo(path)
    expect(await (await again.records()).get('/a')).toEqual(Uint8Array.of(1))
    await again.close()
    await writeFile(join(path, 'records.sqlite'), 'no database at all, but a text '.repeat(50))
    const damaged = await openRepo(path)
    await expect(damaged.records()).rejects.toMatchObject({ name: 'StorageError', code: 'corrupt' })
    await damaged.close()
  })

  it('is made once when many open it at the same instant', async () => {
    const repos = await Promise.all(Array.from({ length: 10 }, () => openRepo(path)))
    const keys = await Promise.all(repos.map((repo) => repo.identity()))
    for (const key of keys) expect(key.encoded).toEqual(keys[0]?.encoded)
    expect((await readdir(path)).toSorted()).toEqual(['blocks', 'identity', 'version'])
    await Promise.all(repos.map((repo) => repo.close()))
  })

  it('is not made in a directory that holds something else', async () => {
    await writeFile(join(root, 'config'), '{}')
    await expect(openRepo(root)).rejects.toMatchObject({ name: 'StorageError', code: 'exists', path: root })
    expect(await readdir(root)).toEqual(['config'])
  })

  it('of another version, or with a damaged version file, is refused and left as it is', async () => {
    await (await openRepo(path)).close()
    for (const [text, code] of [
      ['2\n', 'unsupported'],
      ['', 'corrupt'],
      ['one', 'corrupt'],
      ['9'.repeat(1000), 'corrupt'],
    ] as const) {
      await writeFile(join(path, 'version'), text)
      await expect(openRepo(path)).rejects.toMatchObject({ name: 'StorageError', code })
      expect(await readFile(join(path, 'version'), 'utf8')).toBe(text)
    }
  })

  it('with a damaged identity still serves blocks, and leaves the file as it is', async () => {
    await (await openRepo(path)).close()
    await writeFile(join(path, 'identity'), 'garbage')
    const repo = await openRepo(path)
    await expect(repo.identity()).rejects.toMatchObject({ name: 'StorageError', code: 'corrupt' })
    expect(await readFile(join(path, 'identity'), 'utf8')).toBe('garbage')
    expect(await repo.blocks.stat()).toEqual({ blocks: 0, bytes: 0 })
    await repo.close()
  })

  it.skipIf(process.getuid?.() === 0)('that may not be made says so', async () => {
    await chmod(root, 0o555)
    await expect(openRepo(path)).rejects.toMatchObject({ name: 'StorageError', code: 'not-permitted' })
    await chmod(root, 0o755)
  })
})
