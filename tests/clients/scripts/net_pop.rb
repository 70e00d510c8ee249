require 'net/pop'

pop = Net::POP3.APOP(ENV['POP_MECHANISM'] == 'APOP').new('localhost', ENV['POP_PORT'].to_i)
pop.enable_ssl(OpenSSL::SSL::VERIFY_PEER, ENV['POP_CA'])
pop.start(ENV['POP_USER'], ENV['POP_PASSWORD']) do
  pop.each_mail do |mail|
    File.binwrite(File.join(ENV['POP_INBOX'], mail.unique_id), mail.pop)
    mail.delete if ENV['POP_KEEP'].empty?
  end
end
