"""Losses over preference pairs as pure functions of log-probabilities: what the held-out set is measured by.

Training itself takes TRL's; tests compare the two on the same batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safer_instruct.settings.preference import Loss

if TYPE_CHECKING:
    import torch

TIE = 1e-3  # nats, and times beta of rewards


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Sums of log-probabilities of the responses' tokens given the prompt, in nats, and the numbers of these tokens; each of shape (pairs,)."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor


def rewards(policy: PairLogps, reference: PairLogps | None, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Implicit rewards of both responses, beta (log pi - log pi_ref), each of shape (pairs,): Rafailov et al. 2023, equation 5 less its constant.

    Without a reference, beta times the mean log-probability per token (Meng et al. 2024, equation 4).
    """
    if reference is None:
        return beta * policy.chosen / policy.chosen_tokens, beta * policy.rejected / policy.rejected_tokens
    return beta * (policy.chosen - reference.chosen), beta * (policy.rejected - reference.rejected)


def accuracies(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """1 for each pair whose chosen response has the larger reward, 0 where the rejected one has, 0.5 for a tie; in the rewards' own dtype.

    A tie are rewards that `TIE` parts at most, which is what rounding makes of equal ones in float32.
    """
    import torch

    return torch.where((chosen - rejected).abs() <= TIE * beta, 0.5, (chosen > rejected).to(chosen.dtype))


def pair_losses(loss: Loss, policy: PairLogps, reference: PairLogps | None, *, beta: float, label_smoothing: float = 0.0, gamma: float = 0.0) -> torch.Tensor:
    """The loss of each pair, of shape (pairs,).

    For `kto` the baseline z0, which TRL estimates from mismatched examples of the batch, is taken to be 0, and the two sides are averaged.
    For `orpo` the first term is that of the response's tokens; TRL's takes those of the prompt in too.

    Args:
        loss: Which one.
        policy: Under the model that is trained.
        reference: Under the one that it started from; None for `orpo` and `simpo`.
        beta: See `DpoConfig`.
        label_smoothing: See `DpoConfig`.
        gamma: See `DpoConfig`.
    """
    import torch

    logsigmoid = torch.nn.functional.logsigmoid
    chosen, rejected = rewards(policy, reference, beta)
    margin = chosen - rejected
    match loss:
        case "sigmoid":  # Rafailov et al. 2023, equation 7
            return -logsigmoid(margin)
        case "hinge":  # Zhao et al. 2023, equation 1, with DPO's rewards
            return torch.relu(1 - margin)
        case "robust":  # Chowdhury et al. 2024, equation 12
            flipped = -logsigmoid(-margin)
            return (-(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * flipped) / (1 - 2 * label_smoothing)
        case "ipo":  # Azar et al. 2023, equation 17, with means per token as its authors use it
            difference = chosen / beta / policy.chosen_tokens - rejected / beta / policy.rejected_tokens
            return torch.square(difference - 1 / (2 * beta))
        case "kto":  # Ethayarajh et al. 2024, equation 8
            return 0.5 * (1 - torch.sigmoid(chosen)) + 0.5 * (1 - torch.sigmoid(-rejected))
        case "simpo":  # Meng et al. 2024, equation 6
            return -logsigmoid(margin - gamma)
        case "orpo":  # Hong et al. 2024, equations 6 and 7
            means = policy.chosen / policy.chosen_tokens, policy.rejected / policy.rejected_tokens
            odds = [mean - torch.log1p(-torch.exp(mean.clamp(max=-1e-7))) for mean in means]
            return -means[0] - beta * logsigmoid(odds[0] - odds[1])
