"""What pyproject.toml cannot say in a stable way: the one part that is compiled. Without a compiler it is left out."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "siniantrust.masking.exact._kernels",
            ["src/siniantrust/masking/exact/_kernels.c"],
            depends=["src/siniantrust/masking/exact/_kernels_avx2.h"],
            # Products and sums are rounded one by one, as numpy does; no comparison of numbers may trap here.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-trapping-math"],
            optional=True,
        )
    ]
)
