#ifndef USER_TA_HEADER_DEFINES_H
#define USER_TA_HEADER_DEFINES_H

/* PART_UUID comes from the build: each part is an application of its own. */
#define TA_UUID PART_UUID
#define TA_FLAGS 0
#define TA_STACK_SIZE (32 * 1024)
#define TA_DATA_SIZE (64 * 1024)
#define TA_VERSION "1"
#define TA_DESCRIPTION "SinianTrust part"

#endif
