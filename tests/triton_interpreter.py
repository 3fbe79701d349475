"""Triton's interpreter (TRITON_INTERPRET=1) with numpy 2.4 and later.

It keeps a scalar as an array of one element, which numpy no longer turns into an integer: every
loop with a bound that is not a constant fails. Importing this mends it.
"""

from triton.runtime import interpreter

_patch = interpreter._patch_lang_tensor


def _patch_lang_tensor(tensor, scope):
    _patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = _patch_lang_tensor
