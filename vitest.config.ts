import { defineConfig } from 'vitest/config';

// unit: pure and fast, no root needed. integration: one real daemon each (etcd, OVS, netns). lab: whole simulated hosts.
// kernel: a lab on a kernel with openvswitch, in a guest if need be (scripts/test-kernel.ts).
// workloads: Spark, HDFS and Cassandra (scripts/test-workloads.ts).
export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/{unit,golden,model}/**/*.test.ts'], testTimeout: 30_000 } },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'kernel',
          include: ['test/kernel/**/*.test.ts'],
          globalSetup: ['test/harness/kernel-setup.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'workloads',
          include: ['test/workloads/**/*.test.ts'],
          globalSetup: ['test/workloads/setup.ts'],
          testTimeout: 1_800_000,
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'lab',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/harness/lab-setup.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
