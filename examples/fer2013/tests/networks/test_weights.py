import torch
from torchvision.transforms.v2.functional import to_pil_image

from camlens.loading import factories
from fer2013.data.photographs import packaged


def test_the_base_network_for_the_command_line():
    made = factories.make("fer2013.networks.weights:with_transform")
    image = made.transform(to_pil_image(packaged()[1].picture))
    assert image.shape == (1, 48, 48)
    with torch.no_grad():
        answer = made.model(image[None]).argmax()
    assert made.classes[answer] == "happy"  # she smiles
