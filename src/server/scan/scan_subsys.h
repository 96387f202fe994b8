/*
 * scan_subsys.h
 *	  What llm_ext.c needs of batched execution.
 *
 * src/server/scan/scan_subsys.h
 */
#ifndef LLM_SCAN_SUBSYS_H
#define LLM_SCAN_SUBSYS_H

/*
 * Let other processes run plans with our node in them (parallel workers), and
 * hook into planner and executor where the library is preloaded.
 */
extern void llm_scan_init(void);

#endif /* LLM_SCAN_SUBSYS_H */
