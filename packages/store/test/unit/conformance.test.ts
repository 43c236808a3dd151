import { openStore } from '@pantala/store';
import { storeConformance } from '../conformance.ts';

storeConformance('store on disk', (directory) => openStore({ directory }));
