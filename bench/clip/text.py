"""From contexts and class names to text features: exact, and without work that cannot change them.

CLIP's text transformer is causal, so four savings are exact (they change the cost, not the result):

1. tokens after EOT never reach the EOT row: sequences end there;
2. the states of the prefix ``[SOT] v_1 … v_L`` do not depend on the name that follows: they are computed
   once per context, and their keys and values are shared by all names that follow;
3. nor on what follows where names begin alike: "2012 BMW X3" and "2012 BMW X6" share the states of "2012 BMW X";
4. only the EOT row of the last block is read: its MLP runs on that row alone.

What follows a prefix (name, EOT) is a *suffix*. Suffixes of one context stand side by side in *packs* of about PACK
tokens, as trees: each is a path from a tree's root. In attention a token sees its prefix, those before it on its path,
and itself. So a step is a few large operations whatever the names' lengths, with little padding: packs of like size
make a *segment*.

Towers that are not causal, or that pool another token, take the full-length path (`TextTower.causal` says
which); it gives the same features as the tower's own forward because it is the tower's own forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from bench.clip.packing import Pack, Placed, Suffix, alike, packs_of
from bench.errors import UserError
from bench.progress import count

Position = Literal["end", "middle", "front"]
POSITIONS: tuple[Position, ...] = ("end", "middle", "front")

# What another segment costs, in tokens: padding a pack to a size that is there is cheaper than another segment.
SEGMENT_COST = {"cpu": 16, "cuda": 512}


@dataclass(frozen=True)
class Prompts:
    """Contexts and the names that follow (or precede) them.

    context : [P, L, w], P contexts of L vectors.
    names : class names.
    paired : False: every context with every name, features [P, n, d].
        True: context i with name i alone (P = n), features [n, d].
    """

    context: Tensor
    names: Sequence[str]
    paired: bool = False


@dataclass(frozen=True)
class _Segment:
    """Packs of one size: b packs of s tokens, each after one context."""

    contexts: Tensor  # [b], which context
    ids: Tensor  # [b, s], token ids; -1-k stands for the context's vector k; padding is token 0
    places: Tensor  # [b, s], place in the suffix
    until: Tensor  # [b, s], the pack's last token that sees this one, itself for a leaf; of padding -1
    eot: Tensor  # [n], where the n suffixes end, in the flattened [b · s]
    has_slots: bool  # some ids are context vectors


@dataclass(frozen=True)
class _Plan:
    """How prompts become rows of tokens. order : puts the rows that come out into the order of the names."""

    segments: list[_Segment]
    order: Tensor


@dataclass
class TextTower:
    """open_clip's text side, frozen, for learned prompts.

    Parameters
    ----------
    model : open_clip ``CLIP`` or ``CustomTextCLIP`` with a ``TextTransformer``.
    tokenizer : open_clip ``SimpleTokenizer``.
    """

    model: Any
    tokenizer: Any
    _tokens: dict[str, list[int]] = field(default_factory=dict, repr=False)
    _plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        text = getattr(self.model, "text", self.model)
        if not hasattr(text, "token_embedding") or not hasattr(self.tokenizer, "eot_token_id"):
            raise UserError(
                f"this backbone's text tower ({type(text).__name__} with {type(self.tokenizer).__name__}) is not "
                "supported: prompt learning needs open_clip's TextTransformer and CLIP's tokenizer"
            )
        self.text = text
        self.blocks: list[Any] = list(text.transformer.resblocks)
        self.token_embedding: nn.Embedding = text.token_embedding
        self.width: int = self.token_embedding.embedding_dim
        self.context_length: int = self.model.context_length
        self.causal = _is_causal(text, self.tokenizer.eot_token_id)

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.token_embedding.weight.dtype

    # ---- words ---------------------------------------------------------------------------------------

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without SOT and EOT."""
        if text not in self._tokens:
            self._tokens[text] = list(self.tokenizer.encode(text))
        return self._tokens[text]

    def length(self, text: str, vectors: int = 0) -> int:
        """Tokens of a text with context vectors, SOT and EOT; `context_length` at most are read."""
        return 2 + vectors + len(self.tokens(text))

    def word_vectors(self, text: str) -> Tensor:
        """Embeddings [n, w] of a text's tokens, for contexts that start from words."""
        ids = torch.tensor(self.tokens(text), device=self.device)
        return self.token_embedding(ids).detach().float()

    def _suffix(self, name: str, length: int, position: Position, ending: str) -> Suffix:
        """Ids that follow the prefix: "<name>.", the context vectors that come after the name, EOT."""
        ids = self.tokens(name + ending)
        inside = length - _prefix_length(length, position)  # context vectors after the name
        split = min(len(self.tokens(name)), len(ids))
        slots = [-1 - k for k in range(length - inside, length)]
        suffix = (*ids[:split], *slots, *ids[split:], self.tokenizer.eot_token_id)
        total = 1 + length - inside + len(suffix)
        if total > self.context_length:
            raise UserError(
                f"class name {name!r} needs {total} tokens with a context of {count(length, 'vector')}, the text tower "
                f"reads {self.context_length}: shorten the name or the context"
            )
        return suffix

    # ---- features ------------------------------------------------------------------------------------

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Features [n, d] of whole sentences, not normalised, without gradients."""
        empty = torch.zeros(1, 0, self.width, device=self.device, dtype=self.dtype)
        with torch.no_grad():
            parts = [
                self.encode([Prompts(empty, texts[i : i + 1024])], ending="")[0][0] for i in range(0, len(texts), 1024)
            ]
        return torch.cat(parts)

    def encode(self, prompts: Sequence[Prompts], position: Position = "end", ending: str = ".") -> list[Tensor]:
        """Text features of prompts, not normalised, float32.

        Parameters
        ----------
        prompts : all with contexts of the same length L.
        position : where the class name goes: after the context ("end"), after its first L//2 vectors
            ("middle") or before it ("front").
        ending : what closes the sentence; after the vectors if the name precedes them.

        Returns
        -------
        One tensor for each of `prompts`: [P, n, d], or [n, d] when paired.
        """
        length = prompts[0].context.shape[1]
        context = torch.cat([p.context for p in prompts]).to(self.dtype)  # P_all, L, w
        plan = self._plan(prompts, length, position, ending)
        n_prefix = _prefix_length(length, position)
        if self.causal:
            features = self._run_shared(context, plan.segments, n_prefix)
        else:
            features = self._run_full_length(context, plan.segments, n_prefix)
        features = features.index_select(0, plan.order).float()
        out, start = [], 0
        for p in prompts:
            shape = (len(p.names),) if p.paired else (len(p.context), len(p.names))
            n = len(p.names) if p.paired else len(p.context) * len(p.names)
            out.append(features[start : start + n].view(*shape, -1))
            start += n
        return out

    def _plan(self, prompts: Sequence[Prompts], length: int, position: Position, ending: str) -> _Plan:
        """Sort all suffixes into packs and segments; depends on names and shapes only, so it is kept."""
        key = (length, position, ending, tuple((len(p.context), p.paired, tuple(p.names)) for p in prompts))
        if key not in self._plans:
            if len(self._plans) >= 256:  # batches with always new sets of tasks must not fill the memory
                self._plans.clear()
            self._plans[key] = self._make_plan(prompts, length, position, ending)
        return self._plans[key]

    def _make_plan(self, prompts: Sequence[Prompts], length: int, position: Position, ending: str) -> _Plan:
        placed: list[Placed] = []
        first_context = first_row = 0
        for p in prompts:
            n, b = len(p.names), len(p.context)
            suffixes = [self._suffix(name, length, position, ending) for name in p.names]
            # One pack per row if a context has one name; at full length, every row is alone.
            alone = p.paired or not self.causal
            packs = [Pack.of([j], suffixes) for j in range(n)] if alone else packs_of(suffixes)
            for c in range(b):
                own = packs[c : c + 1] if p.paired else packs
                placed += [Placed(pack, first_context + c, first_row) for pack in own]
                first_row += 0 if p.paired else n
            first_context += b
            first_row += n if p.paired else 0
        cost = SEGMENT_COST.get(self.device.type, SEGMENT_COST["cuda"])
        groups = alike(placed, cost if self.causal else math.inf)
        rows = [x.first_row + j for group in groups for x in group for j in x.pack.members]
        order = torch.tensor(rows).argsort().to(self.device, non_blocking=True)
        return _Plan([self._segment(group) for group in groups], order)

    def _segment(self, group: list[Placed]) -> _Segment:
        packs = [x.pack for x in group]
        size = max(pack.size for pack in packs)
        ids = torch.tensor([pack.ids + [0] * (size - pack.size) for pack in packs])
        places = torch.tensor([pack.places + [0] * (size - pack.size) for pack in packs])
        until = torch.tensor([pack.until + [-1] * (size - pack.size) for pack in packs])
        eot = torch.tensor([i * size + end for i, pack in enumerate(packs) for end in pack.ends])
        contexts = torch.tensor([x.context for x in group])
        has_slots = bool((ids < 0).any())
        contexts, ids, places, until, eot = (
            t.to(self.device, non_blocking=True) for t in (contexts, ids, places, until, eot)
        )
        return _Segment(contexts, ids, places, until, eot, has_slots)

    def _vectors(self, context: Tensor, contexts: Tensor, ids: Tensor, has_slots: bool) -> Tensor:
        """Input vectors [b, s, w] of token ids [b, s], positions not yet added; -1-k: vector k of the row's context."""
        x = self.token_embedding(ids.clamp(min=0))
        if not has_slots:
            return x
        return torch.where((ids < 0)[..., None], context[contexts[:, None], (-1 - ids).clamp(min=0)], x)

    def _prefix_vectors(self, context: Tensor, n_prefix: int) -> Tensor:
        """[SOT] v_1 … v_k of every context: [P, 1 + k, w]."""
        sot = self.token_embedding.weight[self.tokenizer.sot_token_id]
        return torch.cat([sot.expand(len(context), 1, -1), context[:, :n_prefix]], dim=1)

    # ---- the exact, fast path ------------------------------------------------------------------------

    def _run_shared(self, context: Tensor, segments: list[_Segment], n_prefix: int) -> Tensor:
        """EOT features [rows, d] by prefix sharing; see the head of this file."""
        position = self.text.positional_embedding.to(self.dtype)
        prefix = self._prefix_vectors(context, n_prefix) + position[: 1 + n_prefix]  # P, p, w
        p, w = prefix.shape[1:]
        packs = [
            self._vectors(context, s.contexts, s.ids, s.has_slots) + position[p + s.places] for s in segments
        ]  # b, s, w each
        masks = [_mask(s.until, p, self.dtype) for s in segments]
        # One flat list of tokens: all prefixes, then the packs. Linear layers see it as one matrix.
        start, rest = prefix.reshape(-1, w), torch.cat([v.reshape(-1, w) for v in packs])
        sizes = [len(start)] + [s.ids.numel() for s in segments]
        x = torch.cat([start, rest])
        first, last = self.blocks[0], self.blocks[-1]
        # Apart in the first block: suffixes without context vectors are constants there, and need no gradients.
        qkv = [_qkv(first, start), *_qkv(first, rest).split(sizes[1:])]
        for block in self.blocks:
            if block is not first:
                qkv = list(_qkv(block, x).split(sizes))
            if block is not last:
                x = _finish(block, x, self._attend(block, qkv, segments, masks, p))
        # Last block: nothing reads the prefixes' states, and only the EOT rows of the suffixes'.
        attended = self._attend(last, qkv, segments, masks, p, last=True)
        edges = list(accumulate(sizes[1:], initial=0))
        eot = torch.cat([s.eot + edge for s, edge in zip(segments, edges, strict=False)])
        return self._head(_finish(last, x[sizes[0] :].index_select(0, eot), attended.index_select(0, eot)))

    def _attend(
        self, block: Any, qkv: list[Tensor], segments: list[_Segment], masks: list[Tensor], p: int, last: bool = False
    ) -> Tensor:
        """A block's attention, before its output projection: [tokens, w], without the prefixes' rows if `last`.

        qkv : of the prefixes and of each segment, without bias. A bias of the keys adds the same to all logits of a
        query, so softmax does not see it; one of the values passes through: `_finish` adds it.
        """
        attn = block.attn
        heads, e = attn.num_heads, self.width // attn.num_heads
        bias = attn.in_proj_bias[: self.width].view(heads, e)
        of_prefixes, *of_segments = qkv
        # Taken apart first, heads moved forward last: the gradients come back in the layout of qkv, without a copy.
        q, prefix_k, prefix_v = of_prefixes.view(-1, p, 3, heads, e).unbind(2)  # P, p, H, e each
        out = [] if last else [_flat(_attention(q + bias, prefix_k, prefix_v, is_causal=True))]
        for s, own, mask in zip(segments, of_segments, masks, strict=True):
            q, k, v = own.view(len(s.contexts), -1, 3, heads, e).unbind(2)  # b, s, H, e each
            k = torch.cat([prefix_k.index_select(0, s.contexts), k], dim=1)
            v = torch.cat([prefix_v.index_select(0, s.contexts), v], dim=1)
            out.append(_flat(_attention(q + bias, k, v, attn_mask=mask)))
        return out[0] if len(out) == 1 else torch.cat(out)

    def _head(self, eot: Tensor) -> Tensor:
        x = self.text.ln_final(eot)
        projection = self.text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    # ---- the full-length path ------------------------------------------------------------------------------

    def _run_full_length(self, context: Tensor, segments: list[_Segment], n_prefix: int) -> Tensor:
        """EOT features [rows, d] by the tower's own forward over full-length sequences."""
        (s,) = segments  # one suffix a pack
        n, size = s.ids.shape
        ids = torch.zeros(n, self.context_length, dtype=torch.long, device=self.device)
        ids[:, 0] = self.tokenizer.sot_token_id
        ids[:, 1 : 1 + n_prefix] = -1 - torch.arange(n_prefix, device=self.device)
        ids[:, 1 + n_prefix : 1 + n_prefix + size] = s.ids
        vectors = self._vectors(context, s.contexts, ids, bool(context.shape[1]))
        hook = self.token_embedding.register_forward_hook(lambda *_: vectors)
        try:  # any token that is neither padding nor EOT stands for a vector: pooling looks for EOT by its id
            return self.model.encode_text(ids.where(ids >= 0, 1))
        finally:
            hook.remove()


def _prefix_length(length: int, position: Position) -> int:
    """How many of the context's vectors precede the name."""
    return {"end": length, "middle": length // 2, "front": 0}[position]


def _is_causal(text: Any, eot: int) -> bool:
    """Whether prefix sharing is exact for this tower, seen from its mask, pooling and blocks."""
    mask = getattr(text, "attn_mask", None)
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    pooled_id = getattr(text, "text_eos_id", None) or getattr(text, "eos_id", None)
    pools_eot = pool == "argmax" or (pool == "eos" and pooled_id == eot)  # EOT has the highest id
    if mask is None or mask.dim() != 2 or not pools_eot or getattr(text, "cls_emb", None) is not None:
        return False
    causal = torch.full_like(mask, float("-inf")).triu(1)
    blocks_known = all(type(b) is ResidualAttentionBlock for b in text.transformer.resblocks)
    return bool(torch.equal(mask, causal)) and blocks_known and not getattr(text, "use_pad_mask", False)


def _mask(until: Tensor, p: int, dtype: torch.dtype) -> Tensor:
    """[b, 1, s, p + s], added to attention's logits: a token sees the p of its prefix, those above it in its tree, and
    itself. Padding sees the prefix, so that no row is empty."""
    at = torch.arange(until.shape[1], device=until.device)
    own = (at <= at[:, None]) & (at[:, None] <= until[:, None, :])  # b, s that sees, s that is seen
    seen = F.pad(own, (p, 0), value=True)[:, None]
    return torch.zeros((), dtype=dtype, device=until.device).expand(seen.shape).masked_fill(~seen, float("-inf"))


def _attention(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
    """Attention of [b, n, H, e]; torch's own has the heads before the tokens."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, **how).transpose(1, 2)


def _qkv(block: Any, x: Tensor) -> Tensor:
    """Queries, keys and values of rows x [n, w], side by side, without their biases: [n, 3 · w]."""
    return block.ln_1(x) @ block.attn.in_proj_weight.T


def _finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """What follows attention in a block: output projection, residual, MLP. attended : without the values' bias."""
    out = block.attn.out_proj
    bias = torch.addmv(out.bias, out.weight, block.attn.in_proj_bias[2 * x.shape[1] :])
    x = _onto(x, attended, out.weight, bias, block.ls_1)
    y, up, down = block.ln_2(x), block.mlp.c_fc, block.mlp.c_proj
    if not isinstance(block.mlp.gelu, QuickGELU):
        return _onto(x, block.mlp.gelu(up(y)), down.weight, down.bias, block.ls_2)
    # open_clip writes QuickGELU, h · σ(1.702 h), in three operations that each keep a tensor for the gradients; it is
    # SiLU(1.702 h) / 1.702, and the factors cost nothing within the two matrix products.
    scaled = torch.addmm(up.bias, y, up.weight.T, beta=1.702, alpha=1.702)
    return _onto(x, F.silu(scaled), down.weight, down.bias, block.ls_2, 1 / 1.702)


def _onto(x: Tensor, states: Tensor, weight: Tensor, bias: Tensor, scale: nn.Module, alpha: float = 1.0) -> Tensor:
    """x + scale(alpha · states Wᵀ + bias); added up within the matrix product where there is no layer scale."""
    if isinstance(scale, nn.Identity):
        return (x + bias).addmm_(states, weight.T, alpha=alpha)
    return x + scale(torch.addmm(bias, states, weight.T, alpha=alpha))


def _flat(states: Tensor) -> Tensor:
    """[b, n, H, e] as [b · n, H · e]."""
    return states.flatten(2).flatten(0, 1)
