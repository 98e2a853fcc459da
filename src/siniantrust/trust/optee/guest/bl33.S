// What TF-A starts in the normal world: a jump to the kernel that QEMU has loaded, by Linux's boot protocol for arm64
// (x0 is the device tree, x1 to x3 are zero).
.global _start
_start:
    ldr x4, =0x44000000
    ldr x0, =0x40000000
    mov x1, xzr
    mov x2, xzr
    mov x3, xzr
    br x4
.ltorg
