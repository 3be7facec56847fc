"""Programs that others wrote, as clients of the edge."""

import asyncio
import smtplib

import pytest

from tests.world.edge import running_edge


async def run(*command):
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_smtplib():
    """If this fails, what Python programs send is not taken as they mean it."""
    text = "Subject: dots\r\nX-Campaign: c1\r\n\r\n.\r\n..two\r\nlast line without an end"

    def send(address):
        with smtplib.SMTP(*address, timeout=10) as client:
            client.ehlo()
            assert client.has_extn("pipelining")
            assert client.has_extn("chunking")
            client.sendmail("a@example.com", ["b@example.org", "c@example.org"], text, mail_options=["BODY=8BITMIME"])
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("a@example.com", ["nowhere"], text)
            assert client.noop()[0] == 250

    async with running_edge() as edge:
        await asyncio.to_thread(send, edge.address)
        (message,) = edge.intake.messages
        assert message.campaign == "c1"
        assert len(message.recipients) == 2
        assert message.eight_bit
        assert b"".join(message.body).endswith(b"\r\n..\r\n...two\r\nlast line without an end\r\n.\r\n")


@pytest.mark.needs("swaks", "swaks")
@pytest.mark.parametrize("options", [(), ("--pipeline",), ("--protocol", "SMTP")])
async def test_swaks(options):
    """If this fails, the tool that administrators try a server with does not get its mail through."""
    async with running_edge() as edge:
        host, port = edge.address
        code, said = await run(
            "swaks", "--server", host, "--port", str(port), "--from", "a@example.com", "--to", "b@example.org",
            "--ehlo", "client.test", "--header", "X-Job: j1", "--body", "line\\n.\\n..x", "--timeout", "20", *options,
        )  # fmt: skip
        assert code == 0, said
        (message,) = edge.intake.messages
        assert message.campaign == "j1"
        assert b"\r\nline\r\n..\r\n...x\r\n" in b"".join(message.body)


@pytest.mark.needs("smtp-source", "postfix")
@pytest.mark.parametrize("options", [("-d",), (), ("-r", "5"), ("-N",)])
async def test_smtp_source(options):
    """If this fails, many connections at once lose messages or mix them up."""
    async with running_edge() as edge:
        host, port = edge.address
        code, said = await run(
            "smtp-source", "-s", "10", "-m", "200", "-l", "10240",
            "-f", "a@example.com", "-t", "b@example.org", *options, f"{host}:{port}",
        )  # fmt: skip
        assert code == 0, said
        assert len(edge.intake.messages) == 200
        for message in edge.intake.messages:
            body = b"".join(message.body)
            assert body.endswith(b"\r\n.\r\n")
            assert body.count(b"\r\n.\r\n") == 1
            assert len(message.recipients) == (5 if "-r" in options else 1)
