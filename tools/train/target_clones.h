// Loops that the compiler translates for several instruction sets; the loader picks one when the program starts.
#ifndef HILOMOE_TOOLS_TRAIN_TARGET_CLONES_H_
#define HILOMOE_TOOLS_TRAIN_TARGET_CLONES_H_

// Sanitizers cannot follow that.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define HILOMOE_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define HILOMOE_CLONES
#endif
#define HILOMOE_INLINE __attribute__((always_inline)) inline

#endif  // HILOMOE_TOOLS_TRAIN_TARGET_CLONES_H_
