/** Which downloads a peer refuses. Upstream's peers need the lists to be there, also when they are empty. */
const NOTHING_BLOCKED = {
  task: { download: { applications: [], urls: [], tags: [], priorities: [] } },
  persistent_task: {
    download: { applications: [], urls: [], tags: [], priorities: [] },
    upload: { applications: [], urls: [], tags: [] },
  },
  persistent_cache_task: {
    download: { applications: [], urls: [], tags: [], priorities: [] },
    upload: { applications: [], urls: [], tags: [] },
  },
};

/** What a cluster's parts are told when nobody has set anything else; JSON objects as upstream stores them. */
export const DEFAULT_CLUSTER = {
  schedulerConfig: { candidate_parent_limit: 4, filter_parent_limit: 15, job_rate_limit: 10 },
  clientConfig: { load_limit: 200, block_list: NOTHING_BLOCKED },
  seedClientConfig: { load_limit: 2000, block_list: NOTHING_BLOCKED },
  seedPeerConfig: { load_limit: 2000, block_list: NOTHING_BLOCKED },
  scopes: { idc: '', location: '', cidrs: [], hostnames: [] },
} as const;
