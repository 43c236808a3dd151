export async function up(_options: unknown): Promise<number> {
  return 0;
}
