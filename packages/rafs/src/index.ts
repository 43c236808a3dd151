export * from './image.ts';
export * from './tree/node.ts';
