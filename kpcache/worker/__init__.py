"""The programs that the daemon starts: plain, blocking, told what to do over a pipe, stopped by closing it.

- ``shard``     holds pairs and answers draws at once, at normal priority; starts and ends its makers.
- ``maker``     a child of a shard, in the idle scheduling class: makes pairs, checks them, hands them over.
- ``holding``   the pairs of one shard: unrecorded, held, forgotten.
- ``sealing``   how they are sealed when the daemon is gone, and opened for the next one; ``reserve_folder``
  is where they lie meanwhile.
- ``crew``      one maker as its shard sees it: process, pipe, order in work.
- ``generate``  how a pair of each spec is made.
- ``generation`` which life of its virtual machine a process is in, so that no key outlives it.
- ``checks``    whether the bytes to be served are a sound pair, and the tags that it is known by.
- ``background`` how a maker yields the CPU to everybody else.
- ``process``   what every worker does to itself, and how one is started.
- ``wiping``    how freed memory is overwritten, in the daemon as in the workers.
- ``aws_unlock`` a program of its own, the only user of boto3: asks AWS KMS once, at a start, and ends. What
  is said to it stands there; the rest of this is about shards and makers.

Two programs, because one that both makes and holds would answer a draw only when its key is done and a
CPU is idle. Both are exec'd with ``-P``, a scrubbed environment and the root folder as their own, so that
nothing lying about where the daemon was started can run in them. Neither imports trio or boto3; a shard
imports cryptography when it has said that it is ready, and only if there is a reserve.

What is said over the pipes, as frames of ``core/pipe``; ``maker`` is a maker's number within its shard:

- daemon to shard: ``["init", {"shard", "version", "maker", "reserve"}]`` first, once, where "maker" is what
  its makers are to be told and "reserve" ``{"folder", "key", "boot", "machine", "generation", "life"}``
  (``core/segment``) or None; ``["start_maker", maker]``; ``["make", maker, order, spec, count]``, two orders
  per maker at most; ``["end"]``: forget all that is held, and end;
  ``["verdict", [serial, ...], [serial, ...]]``, recorded and refused; ``["draw", draw, spec, count]``;
  ``["burn", spec, count]``, the oldest held; ``["restore", name, key, segment]``, to which a verdict comes as
  to new pairs.
- shard to daemon: ``["ready"]``; ``["maker", maker, "up" | "lost", pid, reason]``, a lost maker's order being
  void; ``["made", maker, order, spec, [[serial, [tag, ...], public], ...], keygen_s,
  took_s]``; ``["unsound", maker,
  order, spec, count, reason]``; ``["done", maker, order]``; ``["batch", draw, sequence, spec, [[serial,
  generation, private, public, digest], ...]]``, as many pairs as were held and at most those asked for;
  ``["restored", name, [[serial, spec, tags, age_s], ...]]``, the tags of a pair end to end, or None in place
  of the rows for a segment that is damaged.
- shard to maker: ``["init", {"tag_key", "scheduling", "generation", "guard", "max_keys", "max_age_s"}]``
  first, once; ``["make", order, spec, count]``. "guard" is the mode and path of a ``generation.Source``.
- maker to shard: ``["ready"]``; ``["made", order, spec, [[generation, private, public, digest, [tag, ...]],
  ...], keygen_s, took_s]``; ``["unsound", order, spec, count, reason]``; ``["done", order]``; at last
  ``["spent"]``.

Every pair of an order is in exactly one ``made`` or ``unsound``. ``keygen_s`` is CPU seconds to make and
check the pairs that were told of since the last, ``took_s`` a list of how long each of these pairs took, in
seconds of the clock. The end of a pipe stops whoever reads from it; a shard that
was not told to ``end`` seals what it holds first. So whoever distrusts a shard kills it before its pipe ends.
"""

from typing import Final

# Why a maker was lost that its shard itself starts again: it was told to start one that still ran.
RESTARTED: Final = "restarted"
# Why one was lost that said so itself: it has worked long enough, or its machine was copied.
SPENT: Final = "spent"
