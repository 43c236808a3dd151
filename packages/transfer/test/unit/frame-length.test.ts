import { expect, test } from 'vitest';
import { FrameLength, SENT_FRAME_LENGTH } from '../../src/wire/frame-length.ts';
import { MAX_FRAME_LENGTH } from '../../src/wire/packet.ts';

test('frames grow while they leave at once, and are small again for a slow receiver', () => {
  const frames = new FrameLength();
  expect(frames.current).toBe(SENT_FRAME_LENGTH);
  // A short one says nothing of what a whole one takes.
  frames.sent(16_384, 0.1);
  expect(frames.current).toBe(SENT_FRAME_LENGTH);
  for (let frame = 0; frame < 10; frame++) frames.sent(frames.current, 1);
  expect(frames.current).toBe(MAX_FRAME_LENGTH);
  frames.sent(frames.current, 7);
  expect(frames.current).toBe(MAX_FRAME_LENGTH);
  for (let frame = 0; frame < 10; frame++) frames.sent(frames.current, 40);
  expect(frames.current).toBe(SENT_FRAME_LENGTH);
});
