/* Block stores, the public names that run everywhere; disk-blocks.ts and repo.ts are for Node. */
export type { BlockOptions, BlockPair, BlockStat, Blockstore } from './blocks.ts'
export { MemoryBlocks, type MemoryBlocksOptions } from './memory-blocks.ts'
