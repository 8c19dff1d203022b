"""From contexts and class names to text features: exact, and without work that cannot change them.

CLIP's text transformer is causal, so three savings are exact (they change the cost, not the result):

1. tokens after EOT never reach the EOT row: sequences end there;
2. the states of the prefix ``[SOT] v_1 … v_L`` do not depend on the name that follows: they are computed
   once per context, and their keys and values are shared by all names that stand behind it;
3. only the EOT row of the last block is read: there, queries and the MLP run on that row alone.

Rows of equal length form a *segment*, so nothing is padded. Towers that are not causal, or that pool
another token, take the plain full-length path (`TextTower.causal` says which); it gives the same features
as the tower's own forward because it is the tower's own forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from bench.errors import UserError

Position = Literal["end", "middle", "front"]
POSITIONS: tuple[Position, ...] = ("end", "middle", "front")

# Several contexts with few names each: copying every context's keys and values to its rows makes one
# segment a length instead of one a context and length. Worth it while the copy stays small.
COPY_LIMIT = 1 << 20  # numbers, per layer and per keys or values


@dataclass(frozen=True)
class Prompts:
    """Contexts and the names that stand behind (or before) them.

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
    """Prompts of one suffix length l: b contexts, r rows behind each."""

    contexts: Tensor  # [b], which context
    ids: Tensor  # [b or 1, r, l], token ids; -1-k stands for the context's vector k
    rows: Tensor  # [b, r], place in the output
    every_context: bool  # contexts is 0 … P-1: keys and values are used as they are, without a copy
    has_slots: bool  # some ids are context vectors

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.contexts), self.ids.shape[1], self.ids.shape[2]


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
    _plans: dict[Any, list[_Segment]] = field(default_factory=dict, repr=False)

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

    def word_vectors(self, text: str) -> Tensor:
        """Embeddings [n, w] of a text's tokens, for contexts that start from words."""
        ids = torch.tensor(self.tokens(text), device=self.device)
        return self.token_embedding(ids).detach().float()

    def _suffix(self, name: str, length: int, position: Position, ending: str) -> tuple[int, ...]:
        """Ids that follow the prefix: "<name>.", the context vectors that come after the name, EOT."""
        ids = self.tokens(name + ending)
        inside = length - _prefix_length(length, position)  # context vectors behind the name
        split = min(len(self.tokens(name)), len(ids))
        slots = [-1 - k for k in range(length - inside, length)]
        suffix = (*ids[:split], *slots, *ids[split:], self.tokenizer.eot_token_id)
        total = 1 + length - inside + len(suffix)
        if total > self.context_length:
            raise UserError(
                f"class name {name!r} needs {total} tokens with a context of {length} vectors, the text tower "
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
        position : where the class name stands: after the context ("end"), after its first L//2 vectors
            ("middle") or before it ("front").
        ending : what closes the sentence; behind the vectors where the name stands before them.

        Returns
        -------
        One tensor for each of `prompts`: [P, n, d], or [n, d] when paired.
        """
        length = prompts[0].context.shape[1]
        context = torch.cat([p.context for p in prompts]).to(self.dtype)  # P_all, L, w
        segments = self._plan(prompts, length, position, ending)
        run = self._run_shared if self.causal else self._run_plain
        features = run(context, segments, _prefix_length(length, position))  # rows in the segments' order
        order = torch.cat([s.rows.flatten() for s in segments]).argsort()
        features = features.index_select(0, order).float()
        out, start = [], 0
        for p in prompts:
            shape = (len(p.names),) if p.paired else (len(p.context), len(p.names))
            n = len(p.names) if p.paired else len(p.context) * len(p.names)
            out.append(features[start : start + n].view(*shape, -1))
            start += n
        return out

    def _plan(self, prompts: Sequence[Prompts], length: int, position: Position, ending: str) -> list[_Segment]:
        """Sort all rows into segments; depends on names and shapes only, so it is kept."""
        key = (length, position, ending, tuple((len(p.context), p.paired, tuple(p.names)) for p in prompts))
        if key not in self._plans:
            if len(self._plans) >= 256:  # batches with ever new sets of tasks must not fill the memory
                self._plans.clear()
            self._plans[key] = self._make_plan(prompts, length, position, ending)
        return self._plans[key]

    def _make_plan(
        self, prompts: Sequence[Prompts], length: int, position: Position, ending: str
    ) -> list[_Segment]:
        n_rows = sum(len(p.names) * (1 if p.paired else len(p.context)) for p in prompts)
        n_contexts = sum(len(p.context) for p in prompts)
        copy = len(prompts) > 1 and n_rows * (1 + length) * self.width <= COPY_LIMIT
        single: dict[int, list[tuple[int, tuple[int, ...], int]]] = {}  # length -> (context, suffix, row)
        segments = []

        def add(contexts: Tensor, ids: Tensor, rows: Tensor) -> None:
            every = torch.equal(contexts, torch.arange(n_contexts))
            contexts, ids, rows = (t.to(self.device) for t in (contexts, ids, rows))
            segments.append(_Segment(contexts, ids, rows, every, has_slots=bool((ids < 0).any())))

        first_context = first_row = 0
        for p in prompts:
            n, b = len(p.names), len(p.context)
            suffixes = [self._suffix(name, length, position, ending) for name in p.names]
            if p.paired or (copy and b == 1):
                for j, suffix in enumerate(suffixes):
                    context = first_context + (j if p.paired else 0)
                    single.setdefault(len(suffix), []).append((context, suffix, first_row + j))
            else:
                for size in sorted({len(s) for s in suffixes}):
                    where = torch.tensor([j for j, s in enumerate(suffixes) if len(s) == size])
                    ids = torch.tensor([[s for s in suffixes if len(s) == size]])  # 1, r, l
                    rows = first_row + torch.arange(b)[:, None] * n + where  # b, r
                    add(first_context + torch.arange(b), ids, rows)
            first_context += b
            first_row += n if p.paired else b * n
        for size in sorted(single):
            contexts, singles, places = (list(column) for column in zip(*single[size], strict=True))
            add(torch.tensor(contexts), torch.tensor(singles)[:, None], torch.tensor(places)[:, None])
        return segments

    def _suffix_vectors(self, context: Tensor, s: _Segment) -> Tensor:
        """Input vectors [b, r, l, w] of a segment, positions not yet added."""
        x = self.token_embedding(s.ids.clamp(min=0)).expand(len(s.contexts), -1, -1, -1)
        if not s.has_slots:
            return x
        vectors = context[s.contexts[:, None, None], (-1 - s.ids).clamp(min=0)]  # b, r, l, w
        return torch.where((s.ids < 0)[..., None], vectors, x)

    def _prefix_vectors(self, context: Tensor, n_prefix: int) -> Tensor:
        """[SOT] v_1 … v_k of every context: [P, 1 + k, w]."""
        sot = torch.tensor([self.tokenizer.sot_token_id], device=self.device)
        sot_vector = self.token_embedding(sot).expand(len(context), 1, -1)
        return torch.cat([sot_vector, context[:, :n_prefix]], dim=1)

    # ---- the exact, fast path ------------------------------------------------------------------------

    def _run_shared(self, context: Tensor, segments: list[_Segment], n_prefix: int) -> Tensor:
        """EOT features [rows, d] by prefix sharing; see the head of this file."""
        position = self.text.positional_embedding.to(self.dtype)
        prefix = self._prefix_vectors(context, n_prefix) + position[: 1 + n_prefix]  # P, p, w
        n_contexts, p, w = prefix.shape
        vectors = [
            self._suffix_vectors(context, s) + position[p : p + s.ids.shape[2]] for s in segments
        ]  # b, r, l, w each
        # One flat list of tokens: all prefixes, then the segments. Linear layers see it as one matrix.
        x = torch.cat([prefix.reshape(-1, w)] + [v.reshape(-1, w) for v in vectors])
        sizes = [n_contexts * p] + [v[..., 0].numel() for v in vectors]
        for block in self.blocks[:-1]:
            q, k, v = _project(block, block.ln_1(x), 3).chunk(3, dim=-1)
            parts = self._attend(block.attn.num_heads, q.split(sizes), k.split(sizes), v.split(sizes), segments, p)
            x = _finish(block, x, torch.cat(parts))
        # Last block: keys and values of all tokens, everything else for the EOT rows alone.
        block = self.blocks[-1]
        h = block.ln_1(x)
        k, v = _project(block, h, 2).chunk(2, dim=-1)
        eot = torch.cat([_last_rows(part, s) for part, s in zip(x.split(sizes)[1:], segments, strict=True)])
        eot_h = torch.cat([_last_rows(part, s) for part, s in zip(h.split(sizes)[1:], segments, strict=True)])
        n_rows = [s.rows.numel() for s in segments]
        q_eot = _project(block, eot_h, 1).split(n_rows)
        parts = self._attend(block.attn.num_heads, [None, *q_eot], k.split(sizes), v.split(sizes), segments, p)
        return self._head(_finish(block, eot, torch.cat(parts)))

    def _attend(
        self,
        heads: int,
        q: Sequence[Tensor | None],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        segments: list[_Segment],
        p: int,
    ) -> list[Tensor]:
        """Attention of the prefixes (part 0, left out where q is None) and of each segment: [tokens, w] each."""
        e = self.width // heads
        # P, H, p, e
        key, value = (t[0].reshape(-1, p, heads, e).transpose(1, 2) for t in (k, v))
        out = []
        if q[0] is not None:
            query = q[0].reshape(-1, p, heads, e).transpose(1, 2)
            states = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            out.append(states.transpose(1, 2).reshape(-1, self.width))
        for s, q_s, k_s, v_s in zip(segments, q[1:], k[1:], v[1:], strict=True):
            b, r, length = s.shape
            assert q_s is not None
            if s.every_context:
                key_s, value_s = key, value
            else:
                key_s, value_s = key.index_select(0, s.contexts), value.index_select(0, s.contexts)
            q_s = q_s.view(b, r, -1, heads, e).permute(0, 3, 1, 2, 4)  # b, H, r, l (or 1), e
            k_s = k_s.view(b, r, length, heads, e).permute(0, 3, 1, 2, 4)
            v_s = v_s.view(b, r, length, heads, e).permute(0, 3, 1, 2, 4)
            states = _attend_segment(q_s, k_s, v_s, key_s, value_s)
            out.append(states.permute(0, 2, 3, 1, 4).reshape(-1, self.width))
        return out

    def _head(self, eot: Tensor) -> Tensor:
        x = self.text.ln_final(eot)
        projection = self.text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    # ---- the plain path ------------------------------------------------------------------------------

    def _run_plain(self, context: Tensor, segments: list[_Segment], n_prefix: int) -> Tensor:
        """EOT features [rows, d] by the tower's own forward over full-length sequences."""
        prefix = self._prefix_vectors(context, n_prefix)
        features = []
        for s in segments:
            b, r, length = s.shape
            suffix = self._suffix_vectors(context, s)  # b, r, l, w
            before = prefix[s.contexts][:, None].expand(-1, r, -1, -1)
            p = before.shape[2]
            ids = torch.zeros(b, r, self.context_length, dtype=torch.long, device=self.device)
            ids[..., 0] = self.tokenizer.sot_token_id
            ids[..., 1:p] = 1  # any token that is neither padding nor EOT: pooling looks for EOT by its id
            ids[..., p : p + length] = torch.where(s.ids < 0, torch.ones_like(s.ids), s.ids)
            ids = ids.flatten(0, 1)
            tail = self.token_embedding(ids[:, p + length :])
            vectors = torch.cat([torch.cat([before, suffix], dim=2).flatten(0, 1), tail], dim=1)
            hook = self.token_embedding.register_forward_hook(lambda *_, vectors=vectors: vectors)
            try:
                features.append(self.model.encode_text(ids))
            finally:
                hook.remove()
        return torch.cat(features)


def _prefix_length(length: int, position: Position) -> int:
    """How many of the context's vectors stand before the name."""
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


def _project(block: Any, h: Tensor, parts: Literal[1, 2, 3]) -> Tensor:
    """Queries (1), keys and values (2), or all three (3), side by side: [tokens, parts * w]."""
    w = h.shape[-1]
    rows = {1: slice(0, w), 2: slice(w, 3 * w), 3: slice(0, 3 * w)}[parts]
    attn = block.attn
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[rows]
    return F.linear(h, attn.in_proj_weight[rows], bias)


def _finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """What follows attention in a block: output projection, residual, MLP."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _last_rows(tokens: Tensor, s: _Segment) -> Tensor:
    """The EOT rows [b * r, w] of a segment's tokens."""
    return tokens.view(-1, s.shape[2], tokens.shape[-1])[:, -1]


def _attend_segment(q: Tensor, k: Tensor, v: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of suffix tokens over their prefix and, causally, over their own suffix.

    q : [b, H, r, l or 1, e]; k, v : [b, H, r, l, e]; key, value : [b, H, p, e] of the prefix.
    Returns [b, H, r, l or 1, e]. The r rows behind one context meet its keys in one product.
    """
    b, heads, r, n, e = q.shape
    p, length = key.shape[2], k.shape[3]
    q = q * e**-0.5
    over_prefix = (q.reshape(b, heads, r * n, e) @ key.transpose(-1, -2)).view(b, heads, r, n, p)
    over_own = q @ k.transpose(-1, -2)  # b, H, r, n, l
    if n > 1:
        mask = torch.full((n, length), float("-inf"), device=q.device, dtype=q.dtype).triu(1)
        over_own = over_own + mask
    weights = torch.cat([over_prefix, over_own], dim=-1).softmax(dim=-1)
    from_prefix = weights[..., :p].reshape(b, heads, r * n, p) @ value
    return from_prefix.view(b, heads, r, n, e) + weights[..., p:] @ v
