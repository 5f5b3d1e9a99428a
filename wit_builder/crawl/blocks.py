"""Bytes of arrays read and copied by the block, for kernels whose time went into single ones.

numba has no vectors. These are the few instructions of LLVM that it lacks; they name no processor,
LLVM makes of them what the one at hand has. They take addresses, ``address_of`` an array and what
is added to it: where an array is handed to a function, numba counts references, which costs more
than reading a block. Nothing is checked: what is read must lie within the array.
"""
# ruff: noqa: ARG001 - numba tells the types of arguments, which are declared below each

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import types
from numba.extending import intrinsic

BLOCK = 64

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_BYTES = ir.VectorType(_BYTE, BLOCK)
_NONE = ir.Constant(_BYTES, ir.Undefined)
_NO = ir.IntType(1)(0)
_instruction: Any = intrinsic  # untyped: it is called without the first argument


@numba.njit(cache=True)
def address_of(array: npt.NDArray[Any]) -> int:
    """Return where the bytes of an array begin; the array must outlive what is read there."""
    return np.intp(array.ctypes.data)  # type: ignore[return-value]  # numba's int


@_instruction
def where(_context: Any, address: Any, byte: Any) -> Any:
    """Return a bit for each byte of the block at an address: whether it is this one."""

    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        block = builder.load(builder.inttoptr(arguments[0], _BYTES.as_pointer()), align=1)
        one = builder.insert_element(_NONE, arguments[1], ir.IntType(32)(0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
        many = builder.shuffle_vector(one, _NONE, first)
        return builder.bitcast(builder.icmp_unsigned("==", block, many), _WORD)

    return types.uint64(types.intp, types.uint8), generate


@_instruction
def first_bit(_context: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set, counted from 0; 64 if none is."""

    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], _NO)

    return types.int64(types.uint64), generate


@_instruction
def count_bits(_context: Any, bits: Any) -> Any:
    """Return how many bits are set."""

    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@_instruction
def byte_at(_context: Any, address: Any) -> Any:
    """Return the byte at an address."""

    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _BYTE.as_pointer()))

    return types.uint8(types.intp), generate


@_instruction
def eight_at(_context: Any, address: Any) -> Any:
    """Return the eight bytes at an address as a number, in the machine's order of bytes."""

    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _WORD.as_pointer()), align=1)

    return types.uint64(types.intp), generate


@_instruction
def multiply_fold(_context: Any, first: Any, second: Any) -> Any:
    """Return the product of two numbers, 128 bits, its lower half combined (xor) with its upper."""

    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(2 * _WORD.width)
        product = builder.mul(*(builder.zext(factor, wide) for factor in arguments))
        upper = builder.lshr(product, wide(_WORD.width))
        return builder.trunc(builder.xor(product, upper), _WORD)

    return types.uint64(types.uint64, types.uint64), generate


@_instruction
def copy(_context: Any, source: Any, target: Any, size: Any) -> Any:
    """Copy so many bytes from one address to another; return how many."""

    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        pointer = _BYTE.as_pointer()
        source, target = (builder.inttoptr(address, pointer) for address in arguments[:2])
        moving = builder.module.declare_intrinsic("llvm.memcpy", [pointer, pointer, _WORD])
        builder.call(moving, [target, source, arguments[2], _NO])
        return arguments[2]

    return types.int64(types.intp, types.intp, types.int64), generate
